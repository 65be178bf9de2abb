"""What holds for every run as a whole, whatever was done to it; ``step_invariants`` has the rest.

One function, one sentence; an ``AssertionError`` says what was found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from engine.domain.events import FINAL_EVENTS, EventType
from engine.domain.run import StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.evidence import verify
from engine.plan import Step
from local_host.durable.determinism import check_prefix
from local_host.durable.execution import Execution
from local_host.durable.executor import request_json, run_cold
from local_host.durable.history import Event, OrchestratorStarted, sdk_events
from tests.chaos.harness import Evidence
from tests.chaos.plans import CANARY, TENANT
from tests.chaos.step_invariants import STEP_INVARIANTS, code_of, name_of

_UNTOLD = ("activity.crashed", "store.unavailable", "store.busy")
"""Codes of a call whose end the orchestration did not learn, though the store may know it."""

_DOUBLE_BOOKS = {"cancel", "deadline", "crash", "duplicates", "terminate", "fallback"}
"""Families in which a call may be paid for whose record does not say so: cut off, repeated, or followed by a fallback's."""

Invariant = Callable[[Evidence], None]

_STEP_EVENTS = {
    StepStatus.SUCCEEDED: EventType.STEP_SUCCEEDED,
    StepStatus.FAILED: EventType.STEP_FAILED,
    StepStatus.DENIED: EventType.STEP_DENIED,
    StepStatus.SKIPPED: EventType.STEP_SKIPPED,
    StepStatus.CANCELLED: EventType.STEP_CANCELLED,
}
_ENDINGS = {
    RunStatus.SUCCEEDED: EventType.RUN_SUCCEEDED,
    RunStatus.PARTIAL: EventType.RUN_PARTIAL,
    RunStatus.DENIED: EventType.RUN_DENIED,
    RunStatus.FAILED: EventType.RUN_FAILED,
    RunStatus.CANCELLED: EventType.RUN_CANCELLED,
    RunStatus.TERMINATED: EventType.RUN_TERMINATED,
}


def the_run_ends_recorded(evidence: Evidence) -> None:
    """Store and orchestration agree that it is over, and how."""
    run = evidence.run
    assert run.status.is_final, f"the run is left {run.status}"
    assert run.finished_at is not None, "a finished run has no time of its end"
    for snapshot in evidence.instances:
        item = snapshot.instance
        if run.status is RunStatus.TERMINATED and item.status == "Terminated":
            continue  # its last words were not waited for
        assert item.status == "Completed", f"{item.instance_id} ended {item.status}: {item.output}"
        if item.instance_id == run.run_id:
            said = json.loads(item.output or "null")
            if run.status is RunStatus.TERMINATED:
                continue  # it was over before it was ended, or nobody could tell it
            assert said["recorded"] is True, "the orchestration gave up recording its end"
            ended_at = datetime.fromisoformat(item.updated_at)
            lingers = ended_at - run.finished_at >= timedelta(minutes=5) and not evidence.observer.jumps_s
            assert not lingers, "the orchestration lingers after its run"
            assert said["status"] == run.status.value, f"the orchestration says {said}, the store {run.status}"


def every_record_is_final(evidence: Evidence) -> None:
    """No step and no item of an accepted plan is left open."""
    if _has_accepted_plan(evidence):
        missing = {step.id for step in evidence.plan.steps} - evidence.steps.keys()
        assert not missing, f"steps without a record: {sorted(missing)}"
    records = [*evidence.steps.values(), *evidence.items.values()]
    left = [f"{name_of(record)} {record.status}" for record in records if not record.status.is_final]
    assert not left, f"records that are not final: {left}"


def the_status_is_truthful(evidence: Evidence) -> None:
    """Succeeded, partial, failed, denied and cancelled say exactly what the step records say."""
    run = evidence.run
    code = run.error.code if run.error is not None else None
    if run.status is RunStatus.CANCELLED:
        assert evidence.observer.cancelled_at is not None, "a run is cancelled that nobody cancelled"
        return
    if run.status is RunStatus.TERMINATED:
        assert evidence.observer.terminated, "a run is terminated that nobody terminated"
        return
    # A cancel that meets a plan in the making is asked about again, unless the deadline comes first.
    assert code != "run.cancelled" or "deadline" in evidence.families, f"a cancelled run is called {run.status}"
    if run.status in (RunStatus.SUCCEEDED, RunStatus.PARTIAL):
        assert run.answer_ref is not None, f"the run is {run.status} without an answer"
    if not _has_accepted_plan(evidence):
        assert run.status in (RunStatus.FAILED, RunStatus.DENIED), f"a run without a plan is {run.status}"
        return
    cut = [step_id for step_id, record in evidence.steps.items() if code_of(record) == "run.cancelled"]
    assert not cut, f"steps {cut} were cut off by a cancel, and the run is {run.status}"
    losses = [evidence.steps[step.id] for step in evidence.plan.steps if _is_loss(step, evidence.steps[step.id])]
    own = {step.id for step in evidence.plan.steps}
    any_success = any(
        record.status is StepStatus.SUCCEEDED and record.step_id in own for record in evidence.steps.values()
    )
    disturbed = evidence.is_store_trouble or "duplicates" in evidence.families
    if not losses and (code == "run.deadline" or (code in _UNTOLD and disturbed)):
        # The step that was written off did end: too late for the answer, or without anybody being told.
        expected = {RunStatus.PARTIAL, RunStatus.FAILED}
    elif not losses:
        expected = {RunStatus.SUCCEEDED}
    elif any_success:
        expected = {RunStatus.PARTIAL}
    else:
        expected = {RunStatus.FAILED if any(r.status is not StepStatus.DENIED for r in losses) else RunStatus.DENIED}
    # An answer may be ready after the clock had used up the time for it; then it is there, and counts for nothing.
    is_unanswered = run.answer_ref is None or (bool(evidence.observer.jumps_s) and code == "run.deadline")
    if run.status is RunStatus.FAILED and is_unanswered and any_success | (not losses):
        # The steps may be as they may: an answer that could not be composed, for the stores or for time, fails the run.
        assert evidence.is_store_trouble or "deadline" in evidence.families, f"no answer was composed ({code})"
        return
    found = {name_of(record): (record.status.value, code_of(record)) for record in losses}
    assert run.status in expected, f"the run is {run.status} ({code}); steps that were lost: {found}"


def the_audit_chain_is_sound(evidence: Evidence) -> None:
    """The chain verifies, and tells the end of the run once, and truly."""
    findings = verify(evidence.audit, TENANT)
    assert not findings, f"the chain is broken: {findings[:3]}"
    ends = [record.body["status"] for record in evidence.audit if record.type.value == "run.finished"]
    assert ends == [evidence.run.status.value], f"the audit log tells the ends {ends}; the run is {evidence.run.status}"


def the_event_log_is_whole(evidence: Evidence) -> None:
    """Gapless, with exactly one final event, which is the last one and the right one."""
    events = evidence.events
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "the event log has gaps"
    finals = [event.type for event in events if event.type in FINAL_EVENTS]
    assert finals == [_ENDINGS[evidence.run.status]], f"final events {finals}; the run is {evidence.run.status}"
    after = [event.type.value for event in events[[event.type in FINAL_EVENTS for event in events].index(True) + 1 :]]
    assert not after, f"events after the final one: {after}"


def the_answer_is_written_once(evidence: Evidence) -> None:
    """The pieces of each writing stand in the log in order, each once, and each writing is opened once."""
    pieces: dict[int, list[int]] = {}
    for event in evidence.events:
        if event.type is EventType.ANSWER_DELTA:
            pieces.setdefault(event.data["answer_attempt"], []).append(event.data["index"])
    for writing, indexes in pieces.items():
        assert indexes == list(range(len(indexes))), f"pieces of writing {writing}: {indexes}"
    opening = (EventType.ANSWER_STARTED, EventType.ANSWER_RESTARTED)
    writings = [event.data["answer_attempt"] for event in evidence.events if event.type in opening]
    assert writings == list(range(1, len(writings) + 1)), f"writings of the answer: {writings}"
    assert set(pieces) <= set(writings)


def events_and_records_tell_one_story(evidence: Evidence) -> None:
    """The last event of a step is the one of its status, and a step has one such event."""
    endings: dict[tuple[str, int | None], list[EventType]] = {}
    for event in evidence.events:
        if event.type in _STEP_EVENTS.values():
            endings.setdefault((event.data["step_id"], event.data.get("item")), []).append(event.type)
    for record in [*evidence.steps.values(), *evidence.items.values()]:
        if record.status.is_final:
            told = endings.get((record.step_id, record.item), [])
            assert told == [_STEP_EVENTS[record.status]], (
                f"{name_of(record)} is {record.status}; its events tell {told}"
            )


def money_adds_up(evidence: Evidence) -> None:
    """Nothing stays reserved, the limit holds, and what was recorded was spent."""
    budget, run = evidence.budget, evidence.run
    if budget is None:
        assert run.cost_micro_usd == 0, "a run without an account has costs"
        return
    if not evidence.is_store_trouble:  # a ledger whose answers are lost may keep what an attempt did not know it had
        assert budget.reserved_micro_usd == 0, f"{budget.reserved_micro_usd} micro-USD stay reserved"
    assert budget.spent_micro_usd <= budget.limit_micro_usd, f"overspent: {budget}"
    repeats = "duplicates" in evidence.families or ("crash" in evidence.families and evidence.is_store_trouble)
    if not repeats:
        # A figure that was not written down because of trouble is still spent, so only that side may be larger. Of two
        # deliveries at once the first to end settles, though the other may be the one whose result counts.
        assert budget.spent_micro_usd >= run.cost_micro_usd, f"spent {budget}, recorded {run.cost_micro_usd}"
    if not evidence.is_store_trouble and not evidence.families & _DOUBLE_BOOKS:
        calls = [r for r in evidence.steps.values() if r.kind != "map"] + list(evidence.items.values())
        recorded = sum(record.cost_micro_usd for record in calls)
        assert budget.spent_micro_usd == run.cost_micro_usd == recorded, f"{budget}, {run.cost_micro_usd}, {recorded}"


def content_stays_in_the_payload_store(evidence: Evidence) -> None:
    """No word of an input, output or document stands in durable storage, rows, events, audit records or logs."""
    assert CANARY.encode() not in evidence.storage_bytes, "content in the durable storage file"
    events = [event for event in evidence.events if event.type is not EventType.ANSWER_DELTA]
    places = {
        "the event log": events,
        "the audit log": evidence.audit,
        "the run's row": [evidence.run],
        "step records": [*evidence.steps.values(), *evidence.items.values()],
    }
    for place, models in places.items():
        found = [text for model in models if CANARY in (text := model.model_dump_json())]
        assert not found, f"content in {place}: {found[0][:300]}"
    lines = [line for line in evidence.log_lines if CANARY in line]
    assert not lines, f"content in the log output: {lines[0][:300]}"


def a_cold_replay_does_the_same(evidence: Evidence) -> None:
    """Replaying recorded history lists the recorded actions, at the end and at each of a few places before it."""
    for snapshot in evidence.instances:
        item, events = snapshot.instance, snapshot.events or []
        if item.status == "Terminated":
            continue  # it was not let finish
        execution = Execution(item, evidence.wrappers[item.name], use_warm=False)
        execution.restore(list(events), 0)
        assert execution.ended is not None, f"the replay of {item.instance_id} does not end"
        assert execution.ended.output_json == item.output, f"the replay of {item.instance_id} ends otherwise"
        for part in _prefixes(events):
            request = request_json(sdk_events(part), item.input_json, item.instance_id, None)
            reply = run_cold(evidence.wrappers[item.name], request)
            assert reply.error is None, f"a replay of a part of {item.instance_id} fails: {reply.error}"
            check_prefix(reply.actions, execution.listing.raw)


def the_log_tells_of_no_surprise(evidence: Evidence) -> None:
    """The durable engine had nothing to report but our own crashes."""
    if not evidence.observer.crashes:
        lines = [line for line in evidence.log_lines if line.startswith("local_host")]
        assert not lines, f"the host logged: {lines[:3]}"


INVARIANTS: tuple[Invariant, ...] = (
    the_run_ends_recorded,
    every_record_is_final,
    the_status_is_truthful,
    the_audit_chain_is_sound,
    the_event_log_is_whole,
    the_answer_is_written_once,
    events_and_records_tell_one_story,
    money_adds_up,
    content_stays_in_the_payload_store,
    a_cold_replay_does_the_same,
    the_log_tells_of_no_surprise,
    *STEP_INVARIANTS,
)


def broken(evidence: Evidence) -> list[str]:
    """Every invariant that does not hold, with what was found."""
    return list(_broken(evidence))


def _broken(evidence: Evidence) -> Iterator[str]:
    for invariant in INVARIANTS:
        try:
            invariant(evidence)
        except AssertionError as err:
            yield f"{invariant.__name__}: {err}"


def _has_accepted_plan(evidence: Evidence) -> bool:
    """True when the plan was vetted, so that its steps are the run's.

    A run may end before its orchestration is told of the plan that was stored: then none of its steps has a record.
    """
    vetted = any(event.type is EventType.PLAN_VETTED for event in evidence.events)
    ended_early = evidence.run.status in (RunStatus.FAILED, RunStatus.CANCELLED) and not evidence.steps
    return vetted and evidence.run.plan_ref is not None and not ended_early


def _is_loss(step: Step, record: StepRecord) -> bool:
    if record.status is StepStatus.CANCELLED:
        return True
    if step.optional:
        return False
    assert record.status is not StepStatus.FAILED or step.on_failure != "skip", (
        f"{step.id} may fail, and is not skipped"
    )
    return record.status in (StepStatus.DENIED, StepStatus.FAILED)


def _prefixes(events: list[Event]) -> Iterator[list[Event]]:
    starts = [index for index, event in enumerate(events) if isinstance(event, OrchestratorStarted)]
    for share in (1, 2, 3):
        place = len(starts) * share // 4
        if 0 < place < len(starts):
            yield events[: starts[place]]
