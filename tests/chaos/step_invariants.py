"""What holds for every step and every call of a run. One function, one sentence; an ``AssertionError`` says what was found."""

from __future__ import annotations

from itertools import pairwise

from engine.domain.audit import AuditType
from engine.domain.events import EventType
from engine.domain.ids import UNDO_SUFFIX, undo_id
from engine.domain.run import StepRecord
from engine.domain.status import RunStatus, StepStatus
from tests.chaos.agent import FALLBACK
from tests.chaos.harness import Evidence
from tests.chaos.twists import ASKED_FOR

LONGEST_PAUSE_S = 1_500.0
"""More than any back-off of a random plan."""


def code_of(record: StepRecord) -> str | None:
    return record.error.code if record.error is not None else None


def name_of(record: StepRecord) -> str:
    return record.step_id if record.item is None else f"{record.step_id}[{record.item}]"


def no_finished_step_runs_again(evidence: Evidence) -> None:
    """A delivery that began after the record was final makes no call, and no step has two effects."""
    for call in evidence.observer.calls:
        assert call.final_before is None, f"{call.key} was called at {call.serial} after it was {call.final_before}"
        assert not call.failed_before, f"attempt {call.attempt} of {call.key} was made again after it had failed"
        assert not call.refused, f"{call.key} was called although its start was refused"
    twice = {key: count for key, count in evidence.observer.effects.items() if count > 1}
    assert not twice, f"effects that happened more than once: {twice}"


def one_key_per_step(evidence: Evidence) -> None:
    """All attempts of a step or item carry one idempotency key, and no two steps share one."""
    pairs = {(call.key, call.idempotency_key) for call in evidence.observer.calls}
    assert len(pairs) == len({key for key, _ in pairs}) == len({text for _, text in pairs}), f"keys: {sorted(pairs)}"


def needs_come_first(evidence: Evidence) -> None:
    """When a step is called, what it needs is final, and it succeeded unless the step can do without it."""
    tolerated = {
        plan.steps[index].id: {plan.steps[need].id for need in needs}
        for plan in evidence.plans
        for index, needs in enumerate(plan.tolerates)
    }
    for call in evidence.observer.calls:
        called = call.key[0].removesuffix(FALLBACK)
        for need, status in call.needs.items():
            if status is None:
                # What the scheduler settled without an answer (skipped, crashed) is written down when the run ends. A second
                # delivery that comes long after may still make something of it.
                status = evidence.steps[need].status
                late = status is StepStatus.SUCCEEDED and "duplicates" not in evidence.families
                goes_on = not _is_begun_again(evidence) and _is_delivered_after(evidence, need, call.serial)
                early = late or goes_on or need not in tolerated[called]
                assert not early, f"{call.key} was called before {need} was final"
                continue
            usable = status is StepStatus.SUCCEEDED or need in tolerated[called]
            assert usable, f"{call.key} was called although {need} was {status}"


def ready_steps_start_at_once(evidence: Evidence) -> None:
    """With room to spare and nothing in the way, a step starts when the last of its needs is final, or as much later as a history
    that is about to end may hold it back."""
    seen = evidence.observer
    disturbed = evidence.is_store_trouble or evidence.families & {
        "crash",
        "duplicates",
        "cancel",
        "people",
        "hold",
        "repair",
    }
    if disturbed or seen.most_in_flight >= evidence.max_parallel:
        return
    ids = [step.id for step in evidence.plan.steps]
    for index, needs in enumerate(evidence.plan.needs):
        ends = [seen.final_ats.get((ids[need], None)) for need in needs]
        started_at = seen.first_ats.get((ids[index], None))
        known = [at for at in ends if at is not None]
        if started_at is not None and known and len(known) == len(ends):
            waited_s = (started_at - max(known)).total_seconds()
            assert waited_s < 0.5 + evidence.hold_s, f"{ids[index]} was ready and waited {waited_s} s"


def nothing_hangs_until_the_deadline(evidence: Evidence) -> None:
    """With an hour to spare no step is cut off by the deadline: whatever was lost on the way is found again."""
    if "deadline" not in evidence.families:
        cut = [name_of(record) for record in evidence.steps.values() if code_of(record) == "run.deadline"]
        assert not cut, f"steps that never ended: {cut}"


def nothing_stands_still(evidence: Evidence) -> None:
    """While the plan waits for nothing, no more than the longest back-off lies between two activities."""
    if evidence.families & {"people", "hold"}:
        return
    gap_s, jumps_s = evidence.observer.longest_gap_s, evidence.observer.jumps_s
    assert gap_s < LONGEST_PAUSE_S, f"nothing happened for {gap_s} s; the clock was set by {jumps_s}"


def no_step_is_asked_too_often(evidence: Evidence) -> None:
    """Nobody looks at a step again and again until its looks are used up."""
    records = [*evidence.steps.values(), *evidence.items.values()]
    odd = [name_of(record) for record in records if code_of(record) == "step.unexpected_outcome"]
    assert not odd, f"steps that were looked at too often: {odd}"


def caps_hold(evidence: Evidence) -> None:
    """At no time are more activities of steps under way than the tenant's cap."""
    most = evidence.observer.most_in_flight
    assert most <= evidence.max_parallel, f"{most} activities at once; the cap is {evidence.max_parallel}"


def a_cancelled_run_calls_nothing_more(evidence: Evidence) -> None:
    """An activity that starts after the cancel was durable calls no agent."""
    late = [(call.key, call.serial) for call in evidence.observer.calls if call.cancelled_before]
    assert not late, f"calls after the run was cancelled: {late}"


def every_call_is_announced_and_answered_for(evidence: Evidence) -> None:
    """The intent stands in the audit log before the call, the result of every recorded success after it."""
    for call in evidence.observer.calls:
        assert call.had_intent, f"{call.key} was called without an intent on record"
    order = {record.entry_id: record for record in evidence.audit}
    for record in [*evidence.steps.values(), *evidence.items.values()]:
        is_call = record.kind == "call" or (record.kind == "map" and record.item is not None)
        if record.status is not StepStatus.SUCCEEDED or not is_call:
            continue
        key = _key(record)
        result = order.get(f"{key}#{record.attempt}/dispatch.result")
        assert result is not None, f"{name_of(record)} succeeded without a result on record"
        intent = order.get(f"{key}#{record.attempt}/dispatch.intended")
        assert intent is not None, f"{name_of(record)} succeeded without an intent in the chain"
        assert intent.seq < result.seq, f"the intent of {name_of(record)} stands after its result"
        assert record.output_ref is not None, f"{name_of(record)} succeeded without an output"
        assert result.body["output_sha256"] == record.output_ref.sha256, f"{name_of(record)}: another output on record"


def no_intent_stays_without_a_word(evidence: Evidence) -> None:
    """Once a run is over the audit log says of each announced effect how it ended, or that nobody knows."""
    told = {record.entry_id for record in evidence.audit}
    for record in evidence.audit:
        if record.type is AuditType.DISPATCH_INTENDED:
            # One that was announced under another version of the plan as well has a record of its own for it.
            key = record.entry_id.partition(record.type.value)[0]
            ends = [entry for entry in told if entry.startswith((f"{key}dispatch.result", f"{key}result.unknown"))]
            assert ends, f"nothing is on record about how {record.entry_id} ended"


def a_denied_step_never_runs(evidence: Evidence) -> None:
    """A right that was revoked before the activity began is not used."""
    used = [(call.key, call.serial) for call in evidence.observer.calls if call.revoked]
    assert not used, f"calls of a capability that was revoked: {used}"


def malformed_output_is_no_success(evidence: Evidence) -> None:
    """An output that does not fit its schema never becomes the output of a step."""
    records = [*evidence.steps.values(), *evidence.items.values()]
    good = {
        (record.step_id + (FALLBACK if record.degraded else ""), record.item)
        for record in records
        if record.status is StepStatus.SUCCEEDED
    }
    assert not good & evidence.observer.malformed, f"taken as good: {good & evidence.observer.malformed}"


def maps_are_the_sum_of_their_items(evidence: Evidence) -> None:
    """A map succeeds with all its items, or skips the bad ones; an item that is denied before it has ended denies it."""
    for step in (step for plan in evidence.plans for step in plan.steps):
        record = evidence.steps.get(step.id)
        if not step.is_map or record is None:
            continue
        items = [item for (step_id, _), item in evidence.items.items() if step_id == step.id]
        if record.status is StepStatus.SUCCEEDED and step.on_failure != "skip":
            good = [item for item in items if item.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)]
            assert len(good) == record.item_count, f"{step.id} succeeded with {len(good)} of {record.item_count} items"
        if _denied_before_it_ended(evidence, step.id):
            told = (StepStatus.DENIED, StepStatus.CANCELLED)
            assert record.status in told, f"an item of {step.id} was denied, and the map is {record.status}"


def _denied_before_it_ended(evidence: Evidence, step_id: str) -> bool:
    """A map may have failed for one item while others wait for people; who comes back to those later is not asked for it."""
    of = [event for event in evidence.events if event.data.get("step_id") == step_id]
    final = (EventType.STEP_SUCCEEDED, EventType.STEP_FAILED, EventType.STEP_DENIED, EventType.STEP_CANCELLED)
    ended = [event.seq for event in of if event.type in final and event.data.get("item") is None]
    denied = [event.seq for event in of if event.type is EventType.STEP_DENIED and event.data.get("item") is not None]
    return bool(denied) and (not ended or min(denied) < min(ended))


def retries_are_used(evidence: Evidence) -> None:
    """A step fails for something that may pass only when its attempts are used up."""
    if evidence.run.status is RunStatus.CANCELLED or "deadline" in evidence.families:
        return
    pairs = [pair for plan in evidence.plans for pair in zip(plan.steps, plan.timings, strict=True)]
    for step, timing in pairs:
        record = evidence.steps.get(step.id)
        if step.on_failure == "fallback":
            continue  # the last attempt is the fallback's
        passing = record is not None and code_of(record) in ("agent.unreachable", "agent.busy", "agent.timeout")
        if record is not None and passing and record.status is StepStatus.FAILED:
            assert record.attempt == timing.max_attempts, f"{step.id} gave up after {record.attempt} attempts"


def a_cancel_ends_a_quiet_run_at_once(evidence: Evidence) -> None:
    """With nothing under way, a cancel that was heard leaves nothing to wait for."""
    at = evidence.observer.quiet_cancel_at
    disturbed = evidence.is_store_trouble or evidence.families & {
        "crash",
        "duplicates",
        "deadline",
        "undo",
        "hold",
        "clock",
    }
    composing = any(event.type is EventType.ANSWER_STARTED for event in evidence.events)
    if at is not None and not disturbed and not composing and evidence.run.finished_at is not None:
        waited_s = (evidence.run.finished_at - at).total_seconds()
        assert waited_s < 5, f"the cancel took {waited_s} s with nothing under way"


def nothing_starts_while_the_run_is_held(evidence: Evidence) -> None:
    """An activity that begins after a suspension was durable calls no agent before the resumption; undoing goes on."""
    held = [call for call in evidence.observer.calls if call.held]
    early = [(call.key, call.serial) for call in held if not call.key[0].endswith(UNDO_SUFFIX)]
    assert not early, f"calls while the run was suspended: {early}"


def what_came_to_nothing_is_undone(evidence: Evidence) -> None:
    """Each effect that can be undone is undone once, or the run's end names it; a run with an answer undoes nothing."""
    undoable = {step.id for plan in evidence.plans for step in plan.steps if step.compensate_with is not None}
    undone = [key for key in evidence.observer.effect_order if key[0].endswith(UNDO_SUFFIX)]
    if evidence.run.status not in (RunStatus.FAILED, RunStatus.DENIED, RunStatus.CANCELLED):
        assert not undone, f"undone in a run that is {evidence.run.status}: {undone}"
        return
    ends = [record for record in evidence.audit if record.type is AuditType.RUN_FINISHED]
    named = set(ends[-1].body.get("not_undone", ()))
    for record in [*evidence.steps.values(), *evidence.items.values()]:
        stands = record.step_id in undoable and record.status is StepStatus.SUCCEEDED
        if stands and (record.kind != "map" or record.item is not None):
            key = (undo_id(record.step_id), record.item)
            assert key in undone or record.step_id in named, (
                f"the effect of {name_of(record)} stands, and nobody says so"
            )


def undoing_goes_backwards(evidence: Evidence) -> None:
    """Steps are undone one after another, the last that ended first."""
    order: list[str] = []
    for step_id, _ in evidence.observer.effect_order:
        if step_id.endswith(UNDO_SUFFIX) and step_id not in order:
            order.append(step_id)
    if evidence.is_store_trouble or evidence.families & {"crash", "duplicates"}:
        return  # an undoing whose answer was lost is told of later than it took effect
    ends = [evidence.observer.final_ats.get((step_id.removesuffix(UNDO_SUFFIX), None)) for step_id in order]
    known = [at for at in ends if at is not None]
    assert known == sorted(known, reverse=True), f"undone in the order {order}, which ended at {known}"


def nothing_goes_on_without_its_approval(evidence: Evidence) -> None:
    """What policy wants a second person for is not called before one has said yes."""
    if "people" not in evidence.families:
        return
    asked = {step.id for plan in evidence.plans for step in plan.steps if step.capability in ASKED_FOR}
    for call in evidence.observer.calls:
        if call.key[0] in asked:
            granted = evidence.observer.granted.get(call.idempotency_key, call.serial)
            assert granted < call.serial, f"{call.key} was called without an approval"


def a_repair_replaces_nothing_that_has_begun(evidence: Evidence) -> None:
    """From one version of the plan to the next only the failed step is gone of those that were called, and no id comes back."""
    used: set[str] = set()
    repaired = [record.body for record in evidence.audit if record.type is AuditType.PLAN_REPAIRED]
    failed = {body["failed_step"] for body in repaired}
    called = {call.key[0].removesuffix(FALLBACK) for call in evidence.observer.calls}
    for before, after in pairwise(evidence.plans):
        old, new = {step.id: step for step in before.steps}, {step.id: step for step in after.steps}
        gone = old.keys() - new.keys()
        assert not (gone & called) - failed, f"replaced although they had begun: {sorted((gone & called) - failed)}"
        assert all(old[step_id] == new[step_id] for step_id in old.keys() & new.keys()), "a step that stays was changed"
        used |= old.keys()
        again = (new.keys() - old.keys()) & used
        assert not again, f"ids that came back: {sorted(again)}"
        assert after.plan_hash in {body["plan_hash"] for body in repaired}, "a version is in force without a record"
    assert len(evidence.plans) <= 1 + 2, "more repairs than the tenant allows"
    told = [event.data["plan_version"] for event in evidence.events if event.type is EventType.PLAN_REPAIRED]
    assert told == list(range(2, evidence.run.plan_version + 1)), f"versions that were told of: {told}"


def _key(record: StepRecord) -> str:
    step_id = record.step_id.removesuffix(UNDO_SUFFIX)
    key = f"{record.run_id}/{step_id}" + (f"/{record.item}" if record.item is not None else "")
    if record.step_id.endswith(UNDO_SUFFIX):
        return f"{key}/undo"
    return f"{key}/fallback" if record.degraded is not None else key


def _is_begun_again(evidence: Evidence) -> bool:
    """True when calls that were over may have been started apart once more, by a second delivery of what starts them."""
    return evidence.roll_after is not None and bool(evidence.families & {"duplicates", "crash"})


def _is_delivered_after(evidence: Evidence, step_id: str, serial: int) -> bool:
    deliveries = [call.delivery for call in evidence.observer.calls if call.key[0] == step_id]
    return any(delivery.regular and delivery.serial > serial for delivery in deliveries)


STEP_INVARIANTS = (
    no_finished_step_runs_again,
    one_key_per_step,
    needs_come_first,
    ready_steps_start_at_once,
    nothing_hangs_until_the_deadline,
    nothing_stands_still,
    no_step_is_asked_too_often,
    caps_hold,
    a_cancelled_run_calls_nothing_more,
    every_call_is_announced_and_answered_for,
    no_intent_stays_without_a_word,
    a_denied_step_never_runs,
    malformed_output_is_no_success,
    maps_are_the_sum_of_their_items,
    retries_are_used,
    a_cancel_ends_a_quiet_run_at_once,
    nothing_starts_while_the_run_is_held,
    what_came_to_nothing_is_undone,
    undoing_goes_backwards,
    nothing_goes_on_without_its_approval,
    a_repair_replaces_nothing_that_has_begun,
)
