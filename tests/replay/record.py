"""Record histories of real runs: ``python -m tests.replay.record [NAME …]``, all kinds or those named.

Run it when histories of a *new* shape should be kept beside the old ones. Do not run it to make a failing replay test pass: the
failure says that instances which are running at the moment of an upgrade would break. It starts a stack in a temporary folder,
lets one run finish, kills the host in the middle of another one, has a third one approved step by step, lets long ones go on in
fresh histories and, with a scripted model, has the plan of another one repaired, and writes ``histories/{name}-{date}.json``.
``repaired3`` is that last one once more, started by the document that version 3 gave to its runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from engine.domain.names import HOLD_MS, STEP_ORCHESTRATOR
from local_host.durable.history import ExecutionCompleted
from tests.e2e import test_repair
from tests.e2e.plans import SAMPLE_INTENT, fit, pause, request_of, search
from tests.e2e.stack import ROOT, Stack, up
from tests.e2e.test_approvals import APPROVER, answer, asked, budget, until
from tests.e2e.test_crash import PLAN
from tests.replay.recording import FOLDER, Recording, read_rows, read_store, save, with_actions
from tests.support.model_server import ModelServer

STARTED_BY_VERSION_3 = """
from engine.domain import names
names.INPUT_VERSION = 3
from triggers import starting
today = starting.orchestration_input
def then(run, quota=None):
    return {name: value for name, value in today(run, quota).items() if name not in ("roll_after", "hold_ms")}
starting.orchestration_input = then
"""
"""Run by the interpreter of the host before anything else. What happens to the run is up to the code of today."""

Made = str | tuple[str, list[Recording]]
"""The id of a finished run, and what is to be kept of it where that is not all."""


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


def repaired(stack: Stack) -> str:
    """A run whose plan a model repairs after a step failed, while another one is still under way."""
    client = stack.client()
    run_id = client.submit({"intent": test_repair.INTENT})
    client.finished(run_id)
    assert client.run(run_id)["plan_version"] == 2
    return run_id


WIDTH, COUNT = 15, 195
"""Of the graphs of long runs: every step needs the one that many before it."""


def long(stack: Stack) -> tuple[str, list[Recording]]:
    """A run that goes on in a fresh history: most of the first one, all of the last, and a few calls carried out apart."""
    steps = [
        fit(f"s{n}", *needs) if n % 60 == 7 else pause(f"s{n}", 0, *needs)
        for n in range(COUNT)
        for needs in [[f"s{n - WIDTH}"] if n >= WIDTH else []]
    ]
    run_id, first = _with_first_history(stack, request_of(*steps))
    assert any(row.get("Name") == "start_steps" for rows in first.episodes for row in rows), (
        "its last stretch was missed"
    )
    whole = _when_over(stack, run_id)
    apart = [one for one in whole if one.name == STEP_ORCHESTRATOR]
    return run_id, [first, *(one for one in whole if one.name != STEP_ORCHESTRATOR), *apart[:3]]


def held(stack: Stack) -> tuple[str, list[Recording]]:
    """A run of short steps that goes on in a fresh history: most of the first one, with steps held back, and all of the last."""
    steps = [
        search(f"s{n}", *([f"s{n - WIDTH}"] if n >= WIDTH else []), timeout_s=2) for n in range(COUNT)
    ]  # fmt: skip
    run_id, first = _with_first_history(stack, request_of(*steps))
    rows = [row for rows in first.episodes for row in rows]
    assert not any(row.get("Name") == "start_steps" for row in rows), "steps were carried apart"
    assert any(
        datetime.fromisoformat(row["FireAt"]) - datetime.fromisoformat(row["Timestamp"])
        <= timedelta(milliseconds=HOLD_MS)
        for row in rows
        if "FireAt" in row
    ), "what was held back was missed"
    return run_id, [first, *_when_over(stack, run_id)]


def _with_first_history(stack: Stack, request: dict[str, Any]) -> tuple[str, Recording]:
    """Let a run end; its first history too, as much of it as was seen before it was left."""
    client = stack.client()
    run_id = client.submit(request)
    store = stack.data / "host" / "durable.sqlite"
    first = following = read_rows(store, run_id)
    while "generation" not in (following.input_json or ""):
        first, following = following, read_rows(store, run_id)
        assert not following.is_whole, "the run stayed in one history"
        time.sleep(0.002)
    client.finished(run_id)
    return run_id, with_actions(first)


RUNS: dict[str, Callable[[Stack], Made]] = {
    "sample": sample,
    "crashed": crashed,
    "approved": approved,
    "long": long,
    "held": held,
}
WITH_MODEL: dict[str, Callable[[Stack], Made]] = {"repaired": repaired}


def main(names: Sequence[str]) -> None:
    """Record each kind of run once."""
    wanted = tuple(names) or (*RUNS, *WITH_MODEL)
    if plain := [name for name in wanted if name in RUNS]:
        _record(plain, RUNS)
    if modelled := [name for name in wanted if name in WITH_MODEL]:
        _record_with_model(modelled, WITH_MODEL)
    if "repaired3" in wanted or not names:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "sitecustomize.py").write_text(STARTED_BY_VERSION_3, encoding="utf-8")
            os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{ROOT}"
            _record_with_model(["repaired3"], {"repaired3": repaired})


def _record_with_model(names: Sequence[str], runs: dict[str, Callable[[Stack], Made]]) -> None:
    with ModelServer() as provider:
        provider.script(test_repair.scripted)
        _record(names, runs, "--model-endpoint", provider.url, "--model", "gpt-4o")


def _when_over(stack: Stack, run_id: str) -> list[Recording]:
    """The recordings, once the engine has written that the run is over: the store knows it a moment earlier."""
    for _ in range(100):
        recordings = read_store(stack.data / "host" / "durable.sqlite", run_id)
        if all(any(isinstance(event, ExecutionCompleted) for event in one.events) for one in recordings):
            break
        time.sleep(0.1)
    return recordings


def _record(names: Sequence[str], runs: dict[str, Callable[[Stack], Made]], *options: str) -> None:
    today = datetime.now(UTC).date().isoformat()
    with tempfile.TemporaryDirectory() as folder, up(Path(folder), *options) as stack:
        for name in names:
            make = runs[name]
            made = make(stack)
            run_id, recordings = made if isinstance(made, tuple) else (made, _when_over(stack, made))
            words = (make.__doc__ or "").strip()
            save(FOLDER / f"{name}-{today}.json", words, recordings)
            print(f"{name}: {len(recordings)} executions of {run_id}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
