"""Record histories of real runs: ``python -m tests.replay.record [NAME …]``, all kinds or those named.

Run it when histories of a *new* shape should be kept beside the old ones. Do not run it to make a failing replay test pass: the
failure says that instances which are running at the moment of an upgrade would break. It starts a stack in a temporary folder,
lets one run finish, kills the host in the middle of another one, has a third one approved step by step, and writes
``histories/{name}-{date}.json``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.e2e.plans import SAMPLE_INTENT
from tests.e2e.stack import Stack, up
from tests.e2e.test_approvals import APPROVER, answer, asked, budget, until
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


def approved(stack: Stack) -> str:
    """A run that waits for people: for a step, for two items of a map, and with a question; one answer is no."""
    client, ben = stack.client(), stack.client(user="ben", roles=APPROVER)
    each = budget("each", {"$ref": "item#"}, for_each={"$ref": "run#/context/values/amounts"}, max_items=5)
    question = {"id": "ok", "approval": {"question": "Shall we?"}, "optional": True}
    run_id = client.submit(asked(each, question, budget(), amount=30_000, amounts=[10_000, 30_000, 40_000]))
    until(client, run_id, "approval.requested", 4)
    answer(ben, run_id, "ok", "reject")
    for item in (1, 2):
        answer(ben, run_id, "each", item=item)
    answer(ben, run_id, "budget")
    client.finished(run_id)
    return run_id


RUNS: dict[str, Callable[[Stack], str]] = {"sample": sample, "crashed": crashed, "approved": approved}


def main(names: Sequence[str]) -> None:
    """Record each kind of run once."""
    today = datetime.now(UTC).date().isoformat()
    with tempfile.TemporaryDirectory() as folder, up(Path(folder)) as stack:
        for name in names or RUNS:
            make = RUNS[name]
            run_id = make(stack)
            recordings = read_store(stack.data / "host" / "durable.sqlite", run_id)
            words = (make.__doc__ or "").strip()
            save(FOLDER / f"{name}-{today}.json", words, recordings)
            print(f"{name}: {len(recordings)} executions of {run_id}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
