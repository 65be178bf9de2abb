"""Histories of real runs, replayed cold: today's orchestrators schedule exactly what the recorded ones did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.domain import names
from engine.scheduler import repairing
from local_host.durable.determinism import NonDeterministicError, check_prefix
from local_host.durable.history import EventType
from orchestrators import run_orchestrator as run_module
from orchestrators.calls import RunCalls
from orchestrators.run_orchestrator import run_orchestrator
from tests.replay.recording import BODIES, FOLDER, Recording, listed_after, load, replay

# What the SDK says about histories that do not fit; those here are made not to fit.
pytestmark = pytest.mark.filterwarnings("ignore:Potential duplicate Task completion")

FILES = sorted(FOLDER.glob("*.json"))
RECORDINGS = [(path.stem, recording) for path in FILES for recording in load(path)]
each_recording = pytest.mark.parametrize(
    "recording", [recording for _, recording in RECORDINGS], ids=[f"{stem}-{r.name}" for stem, r in RECORDINGS]
)
RUNS = [recording for _, recording in RECORDINGS if recording.name == names.RUN_ORCHESTRATOR]
each_run = pytest.mark.parametrize("recording", RUNS, ids=[r.instance_id for r in RUNS])

BEGINNINGS = 25
"""How many beginnings of a history are replayed in every run of the tests, spread evenly: all of them cost its square."""

CONTROL = {
    "status", "skeleton", "code", "retryable", "item_count", "ended", "until_at", "retry_after_s", "approval_id", "expires_at",
    "event", "look_by", "left_s",
}  # fmt: skip


def test_there_are_histories_of_a_finished_and_of_a_crashed_run_and_of_a_map() -> None:
    stems = {path.stem.split("-")[0] for path in FILES}
    assert {"sample", "crashed", "approved", "repaired", "repaired3", "long", "held"} <= stems
    assert {recording.name for _, recording in RECORDINGS} == set(BODIES)


@each_recording
def test_a_replay_schedules_exactly_what_was_recorded_and_returns_the_same(recording: Recording) -> None:
    execution = replay(recording, BODIES[recording.name])
    assert execution.listing.raw == recording.actions
    if not recording.is_whole:
        return
    assert execution.ended is not None
    assert execution.ended.error is None
    assert json.loads(execution.ended.output_json or "null") == recording.result


READERS = [one for _, one in RECORDINGS if one.name != names.STEP_ORCHESTRATOR]
"""Those that read answers; the other hands on what it gets, as it is."""
ANSWERS = {EventType.TASK_COMPLETED: "Result", EventType.SUB_COMPLETED: "Result", EventType.EVENT_RAISED: "Input"}


def saying_more(text: str) -> str:
    """An answer with a field that this build does not know; answers of calls carried out apart are texts in a text."""
    value = json.loads(text)
    if isinstance(value, str) and value.startswith("{"):
        return json.dumps(saying_more(value))
    is_answer = isinstance(value, dict) and "status" in value
    return json.dumps(value | {"said_by_a_later_build": {"more": [1]}}) if is_answer else text


def of_a_later_build(row: dict[str, Any]) -> dict[str, Any]:
    field = ANSWERS.get(row["EventType"])
    return row if field is None or row.get(field) is None else row | {field: saying_more(row[field])}


@pytest.mark.parametrize("recording", READERS, ids=[f"{one.instance_id}-{one.name}" for one in READERS])
def test_answers_of_a_later_build_that_say_more_change_nothing(recording: Recording) -> None:
    """While two builds are on one hub, what the later one answers may reach an orchestrator of the former."""
    more = [[of_a_later_build(row) for row in rows] for rows in recording.episodes]
    assert more != recording.episodes
    assert replay(replace(recording, episodes=more), BODIES[recording.name]).listing.raw == recording.actions


@pytest.mark.parametrize("most", [BEGINNINGS, pytest.param(None, marks=pytest.mark.thorough)])
@each_recording
def test_every_beginning_of_a_history_replays_to_the_beginning_of_its_actions(
    recording: Recording, most: int | None
) -> None:
    beginnings = list(enumerate(listed_after(recording), start=1))
    stride = 1 if most is None else max(1, len(beginnings) // most)
    for count, listed in beginnings[::-stride]:
        execution = replay(recording, BODIES[recording.name], count)
        assert len(execution.listing.leaves) == listed
        check_prefix(execution.listing.raw, recording.actions)


@each_recording
def test_a_history_holds_control_and_no_content(recording: Recording) -> None:
    results = [
        json.loads(row["Result"])
        for rows in recording.episodes
        for row in rows
        if row["EventType"] == EventType.TASK_COMPLETED and row.get("Result")
    ]
    assert results
    for result in results:
        assert set(result) <= CONTROL


@pytest.mark.parametrize("seed", ["1", "4711"])
def test_a_fresh_process_with_another_hash_seed_replays_the_same(seed: str) -> None:
    script = (
        "from tests.replay.test_replay import BODIES, RECORDINGS, replay\n"
        "assert all(replay(r, BODIES[r.name]).listing.raw == r.actions for _, r in RECORDINGS)\n"
        "print(len(RECORDINGS))"
    )
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    assert int(done.stdout) == len(RECORDINGS)


def renamed_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "PERFORM_STEP", "perform_step_v2")


def other_order(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = run_module.decide_admitted
    monkeypatch.setattr(run_module, "decide_admitted", lambda state, now: decide(state, now)[::-1])


def other_input(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduled = RunCalls._activity
    monkeypatch.setattr(RunCalls, "_activity", lambda self, name, fields: scheduled(self, name, fields | {"new": True}))


def earlier_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    read = run_module.run_ref

    def changed(value: Any) -> Any:
        ref = read(value)
        return type(ref)(ref.tenant_id, ref.run_id, ref.deadline_at - timedelta(seconds=1))

    monkeypatch.setattr(run_module, "run_ref", changed)


@each_run
@pytest.mark.parametrize("change", [renamed_activity, other_order, other_input, earlier_deadline])
def test_a_change_that_would_break_running_instances_is_detected(
    recording: Recording, change: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    with pytest.raises(NonDeterministicError, match="recorded was"):
        replay(recording, run_orchestrator)


@each_run
def test_one_more_action_at_the_beginning_is_detected(recording: Recording) -> None:
    def changed(context: Any) -> Generator[Any, Any, Any]:
        yield context.call_activity("warm_up", {})
        return (yield from run_orchestrator(context))

    with pytest.raises(NonDeterministicError, match="warm_up"):
        replay(recording, changed)


def test_there_is_a_history_of_every_version_of_the_start_document_that_runs_may_have() -> None:
    documents = [json.loads(json.loads(recording.input_json or "null")) for recording in RUNS]
    assert {document.get("v", 1) for document in documents} == set(range(1, names.INPUT_VERSION + 1))


def test_a_run_of_version_3_repairs_and_stays_in_one_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that took either from such runs, or gave it to others, would break those under way."""
    (third,) = [one for one in RUNS if json.loads(json.loads(one.input_json or "null")).get("v") == 3]
    rows = [row for rows in third.episodes for row in rows if row["EventType"] == EventType.TASK_SCHEDULED]
    scheduled = [row["Name"] for row in rows]
    assert names.REPAIR_PLAN in scheduled
    assert names.CHECKPOINT_RUN not in scheduled
    monkeypatch.setattr(repairing, "REPAIRS_SINCE", 4)
    with pytest.raises(NonDeterministicError):
        replay(third, run_orchestrator)


def test_a_run_of_version_5_holds_steps_back_and_one_of_version_4_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above: what holds back steps makes timers of its own, and schedules no `start_steps`."""
    by_version: dict[int, list[Recording]] = {}
    for one in RUNS:
        by_version.setdefault(json.loads(json.loads(one.input_json or "null")).get("v", 1), []).append(one)
    held = by_version[5][0]
    rows = [row for rows in held.episodes for row in rows if row["EventType"] == EventType.TASK_SCHEDULED]
    assert names.START_STEPS not in {row["Name"] for row in rows}
    monkeypatch.setattr(names, "HOLDS_SINCE", 6)
    with pytest.raises(NonDeterministicError):
        replay(held, run_orchestrator)


BROKEN = sorted((FOLDER / "broken").glob("*.json"))


def test_there_is_a_broken_history() -> None:
    assert BROKEN


@pytest.mark.parametrize("path", BROKEN, ids=[path.stem for path in BROKEN])
def test_a_history_that_was_broken_on_purpose_is_refused_and_the_place_is_named(path: Path) -> None:
    for recording in load(path):
        with pytest.raises(NonDeterministicError, match=r"recorded was .*perform_step.* with sequence number \d+"):
            replay(recording, BODIES[recording.name])


@pytest.mark.parametrize("recording", RUNS, ids=[r.instance_id for r in RUNS])
def test_a_run_started_before_runs_took_a_place_finishes_without_one(recording: Recording) -> None:
    """The version of the start document decides, not the code: what is not in it was not asked for then."""
    document = json.loads(json.loads(recording.input_json or "null"))
    took_a_place = "quota" in document
    asked = any(row["EventType"] == EventType.EVENT_SENT for rows in recording.episodes for row in rows)
    assert asked == took_a_place
    assert (replay(recording, BODIES[recording.name]).ended is not None) == recording.is_whole
