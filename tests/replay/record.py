"""Record histories of real runs: ``python -m tests.replay.record``.

Run it when histories of a *new* shape should be kept beside the old ones. Do not run it to make a failing replay test pass: the
failure says that instances which are running at the moment of an upgrade would break. It starts a stack in a temporary folder,
lets one run finish, kills the host in the middle of another one, and writes ``histories/{name}-{date}.json``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tests.e2e.plans import SAMPLE_INTENT
from tests.e2e.stack import Stack, up
from tests.e2e.test_crash import PLAN
from tests.replay.recording import FOLDER, read_store, save


def sample(stack: Stack) -> str:
    """The sample intent, undisturbed."""
    client = stack.client()
    run_id = client.submit({"intent": SAMPLE_INTENT})
    client.finished(run_id)
    return run_id


def crashed(stack: Stack) -> str:
    """A run whose host is killed while a call and a wait are open."""
    client = stack.client()
    run_id = client.submit(PLAN)
    client.until_event(run_id, "step.started", "mix")
    stack.kill_host()
    client.finished(run_id)
    return run_id


RUNS: dict[str, Callable[[Stack], str]] = {"sample": sample, "crashed": crashed}


def main() -> None:
    """Record each kind of run once."""
    today = datetime.now(UTC).date().isoformat()
    with tempfile.TemporaryDirectory() as folder, up(Path(folder)) as stack:
        for name, make in RUNS.items():
            run_id = make(stack)
            recordings = read_store(stack.data / "host" / "durable.sqlite", run_id)
            words = (make.__doc__ or "").strip()
            save(FOLDER / f"{name}-{today}.json", words, recordings)
            print(f"{name}: {len(recordings)} executions of {run_id}", file=sys.stderr)


if __name__ == "__main__":
    main()
