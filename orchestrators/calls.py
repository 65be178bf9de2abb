"""Commands as durable tasks: names, small JSON inputs, and what comes back as events.

Inputs name a run, a step and an attempt. Nothing that a plan, a caller or a step wrote goes through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, assert_never

from engine.domain import names
from engine.domain.base import iso_utc
from engine.domain.skeleton import SkeletonStep
from engine.scheduler import (
    AdmittedState,
    LeaseTerms,
    PartRef,
    PartState,
    RunRef,
    RunState,
    new_admitted,
    not_undone,
    step_report,
)
from engine.scheduler.answers import lease_answer, run_crash, run_outcome, step_crash, step_outcome
from engine.scheduler.backoff import RetryPolicy
from engine.scheduler.commands import (
    AcquireLease,
    Call,
    CollectMap,
    ComposeAnswer,
    Event,
    ExpandMap,
    FinishRun,
    LeaseAnswered,
    LeaseCall,
    PerformStep,
    PlanRun,
    RenewLease,
    RepairPlan,
    RunAnswered,
    RunMapPart,
    StepAnswered,
    StepCall,
    UndoStep,
)
from engine.scheduler.generations import name_of, pack, unpack

if TYPE_CHECKING:
    from azure.durable_functions import DurableOrchestrationContext, EntityId


def run_ref(value: Any) -> RunRef:
    """Parse an orchestration's input. Raises ``ValueError`` saying what is missing; never echoes what it got."""
    source = value if isinstance(value, Mapping) else {}
    version = source.get("v", 1)
    if not isinstance(version, int):
        raise ValueError("v in the input of the orchestration is no version")
    return RunRef(_text(source, "tenant_id"), _text(source, "run_id"), _instant(source, "deadline_at"), version)


def lease_terms(value: Any) -> LeaseTerms | None:
    """The terms in a run's input; None where there are none. Raises ``ValueError``."""
    terms = value.get("quota") if isinstance(value, Mapping) else None
    if terms is None:
        return None
    limit, lease_ms, max_wait_s = terms["limit"], terms["lease_ms"], terms["max_wait_s"]
    if not isinstance(limit, int) or not isinstance(lease_ms, int) or limit < 1 or lease_ms < 1 or max_wait_s < 0:
        raise ValueError("the quota in the input of the orchestration is none")
    return LeaseTerms(limit, lease_ms, float(max_wait_s))


def roll_after(value: Any) -> int | None:
    """How much a history of this run takes in; None for runs of versions that stay in one history. Raises ``ValueError``."""
    if run_ref(value).version < names.ROLLS_SINCE:
        return None
    limit = value.get("roll_after", names.ROLL_AFTER)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError("roll_after in the input of the orchestration is no number of at least 1")
    return limit


def hold(value: Any) -> timedelta:
    """How long a history of this run may hold new calls back, once; nothing for runs of versions that hold none. Raises
    ``ValueError``."""
    if run_ref(value).version < names.HOLDS_SINCE:
        return timedelta()
    hold_ms = value.get("hold_ms", names.HOLD_MS)
    if not isinstance(hold_ms, int) or isinstance(hold_ms, bool) or hold_ms < 0:
        raise ValueError("hold_ms in the input of the orchestration is no number of milliseconds")
    return timedelta(milliseconds=hold_ms)


def begun(value: Any) -> tuple[int, AdmittedState]:
    """The number of this history of the run, from 1, and the state it begins with. Raises ``ValueError``."""
    ref, terms = run_ref(value), lease_terms(value)
    handed_on = value.get("generation")
    if handed_on is None:
        return 1, new_admitted(ref, terms)
    return handed_on["number"], unpack(handed_on["state"], terms)


def handed_on(value: Mapping[str, Any], number: int, state: AdmittedState) -> dict[str, Any]:
    """The input of history ``number`` of the run."""
    return {**value, "generation": {"number": number, "state": pack(state)}}


def part_ref(value: Any) -> PartRef:
    """Parse the input of a map part, as ``part_input`` made it. Raises ``ValueError``."""
    run = run_ref(value)
    max_attempts, backoff_s, factor, max_backoff_s = value["retry"]
    return PartRef(
        run=run,
        step_id=_text(value, "step_id"),
        first=value["first"],
        count=value["count"],
        concurrency=value["concurrency"],
        retry=RetryPolicy(max_attempts, backoff_s, factor, max_backoff_s),
        on_failure=value["on_failure"],
    )


def part_input(ref: RunRef, spec: SkeletonStep, call: RunMapPart) -> dict[str, Any]:
    """The input of one map part: the run, the step, the range of items and the step's rules for a failed item."""
    # Runs that were started before there were versions have none in what they schedule either.
    versioned = {"v": ref.version} if ref.version > 1 else {}
    return {
        **versioned,
        "tenant_id": ref.tenant_id,
        "run_id": ref.run_id,
        "deadline_at": iso_utc(ref.deadline_at),
        "step_id": spec.id,
        "first": call.first,
        "count": call.count,
        "concurrency": call.concurrency,
        "retry": [spec.max_attempts, spec.backoff_s, spec.factor, spec.max_backoff_s],
        "on_failure": spec.on_failure,
    }


def schedule_work(context: DurableOrchestrationContext, work: Mapping[str, Any]) -> Any:
    """A durable task for what ``RunCalls`` wants done for a step."""
    if "part" in work:
        return context.call_sub_orchestrator(names.MAP_ORCHESTRATOR, work["input"], work["part"])
    return context.call_activity(work["activity"], work["input"])


class RunCalls:
    """Durable tasks of a run, and signals to its tenant's quota, which are no tasks."""

    def __init__(self, context: DurableOrchestrationContext, ref: RunRef, terms: LeaseTerms | None = None) -> None:
        self._context = context
        self._ref = ref
        self._terms = terms
        self._run = {"tenant_id": ref.tenant_id, "run_id": ref.run_id}

    @property
    def run_id(self) -> str:
        """Whose calls they are."""
        return self._ref.run_id

    @property
    def deadline_at(self) -> datetime:
        """See `shell.Calls`."""
        return self._ref.deadline_at

    def schedule(self, call: Call, state: AdmittedState) -> Any:
        """See `shell.Calls`."""
        run = state.run
        match call:
            case AcquireLease() | RenewLease():
                return self._schedule_lease(call)
            case PlanRun():
                return self._activity(names.PLAN_RUN, {"attempt": call.attempt})
            case RepairPlan():
                return self._activity(names.REPAIR_PLAN, _repair_asked(run, call))
            case ComposeAnswer():
                return self._activity(names.COMPOSE_ANSWER, {"attempt": call.attempt, **step_report(run)})
            case FinishRun():
                ending: dict[str, Any] = {"status": str(call.status), "code": call.code}
                if failed := not_undone(run):
                    ending["not_undone"] = failed
                return self._activity(names.FINISH_RUN, {"attempt": call.attempt, **ending, **step_report(run)})
            case UndoStep():
                asked = {"step_id": _spec(run, call).id, "attempt": call.attempt, "look": call.look}
                return self._activity(names.UNDO_STEP, asked)
            case PerformStep() | ExpandMap() | CollectMap() | RunMapPart():
                return self._schedule_step(call, _spec(run, call))
            case _:
                assert_never(call)

    def _schedule_step(self, call: StepCall, spec: SkeletonStep) -> Any:
        work = self._work_of(call, spec)
        return schedule_work(self._context, work)

    def _work_of(self, call: StepCall, spec: SkeletonStep) -> dict[str, Any]:
        """What is to be scheduled: ``{"activity", "input"}``, or ``{"part", "input"}`` with the id of an instance."""
        match call:
            case PerformStep():
                return self._by_activity(names.PERFORM_STEP, {"step_id": spec.id, "attempt": call.attempt})
            case ExpandMap():
                return self._by_activity(names.EXPAND_MAP, {"step_id": spec.id, "attempt": call.attempt})
            case CollectMap():
                extent = {"attempt": call.attempt, "item_count": call.item_count}
                return self._by_activity(names.COLLECT_MAP, {"step_id": spec.id, **extent})
            case RunMapPart():
                instance_id = names.map_part_id(self._ref.run_id, call.step, call.first)
                return {"part": instance_id, "input": part_input(self._ref, spec, call)}
            case _:
                assert_never(call)

    def _by_activity(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"activity": name, "input": {**self._run, **fields}}

    def start_apart(self, calls: Sequence[StepCall], state: AdmittedState, *, again: bool) -> Any:
        """The task of having calls carried out by instances of their own. ``again``: they may have been started, or be over."""
        starts = [
            {"call": name_of(call), "work": self._work_of(call, _spec(state.run, call))} for call in calls
        ]  # fmt: skip
        return self._activity(names.START_STEPS, {"again": again, "starts": starts})

    def checkpoint(self, generation: int) -> Any:
        """The task between the last decision of a history and its end."""
        return self._activity(names.CHECKPOINT_RUN, {"generation": generation})

    def _schedule_lease(self, call: LeaseCall) -> Any:
        if self._terms is None:
            raise TypeError("a run without terms takes no place")
        asked = {"run_id": self._ref.run_id, "lease_ms": self._terms.lease_ms}
        if isinstance(call, AcquireLease):
            asked |= {"limit": self._terms.limit}
            return self._context.call_entity(self._quota, "acquire", asked)
        self._context.signal_entity(self._quota, "renew", asked)
        return None

    def release(self) -> None:
        """Tell the quota that the place is free. Nobody waits for it; should it get lost, the lease expires."""
        if self._terms is not None:
            self._context.signal_entity(self._quota, "release", {"run_id": self._ref.run_id})

    @property
    def _quota(self) -> EntityId:
        from azure.durable_functions import EntityId

        return EntityId(names.TENANT_QUOTA, self._ref.tenant_id)

    def event(self, call: Call, result: Any, *, crashed: bool, at: datetime) -> Event:
        """See `shell.Calls`."""
        match call:
            case AcquireLease():
                return LeaseAnswered(call, "unknown" if crashed else lease_answer(result), at)
            case RenewLease():
                raise TypeError("a renewal has no answer")
            case PlanRun() | RepairPlan() | ComposeAnswer() | UndoStep() | FinishRun():
                return RunAnswered(call, run_crash() if crashed else run_outcome(call, result), at)
            case _:
                return StepAnswered(call, step_crash() if crashed else step_outcome(result), at)

    def _activity(self, name: str, fields: dict[str, Any]) -> Any:
        return self._context.call_activity(name, {**self._run, **fields})


class PartCalls:
    """Durable tasks of one part of a map."""

    def __init__(self, context: DurableOrchestrationContext, ref: PartRef) -> None:
        self._context = context
        self._ref = ref
        self._step = {"tenant_id": ref.run.tenant_id, "run_id": ref.run.run_id, "step_id": ref.step_id}
        if ref.run.version > 1:
            self._step["waiter"] = context.instance_id

    @property
    def deadline_at(self) -> datetime:
        """See `shell.Calls`."""
        return self._ref.run.deadline_at

    def schedule(self, call: Call, state: PartState) -> Any:
        """See `shell.Calls`. A part makes no other call than `PerformStep`."""
        if not isinstance(call, PerformStep):
            raise TypeError(f"a part of a map cannot make the call {type(call).__name__}")
        return self._context.call_activity(
            names.PERFORM_STEP, {**self._step, "attempt": call.attempt, "item": call.item}
        )

    def event(self, call: Call, result: Any, *, crashed: bool, at: datetime) -> Event:
        """See `shell.Calls`."""
        if not isinstance(call, PerformStep):
            raise TypeError(f"a part of a map cannot make the call {type(call).__name__}")
        return StepAnswered(call, step_crash() if crashed else step_outcome(result), at)


def _repair_asked(state: RunState, call: RepairPlan) -> dict[str, Any]:
    codes = dict(state.board.failing) if state.board is not None else {}
    asked = {"number": call.number, "step_id": _spec(state, call).id, "code": codes.get(call.step, "")}
    return {**asked, "attempt": call.attempt}


def _spec(state: RunState, call: StepCall | UndoStep | RepairPlan) -> SkeletonStep:
    if state.board is None:
        raise ValueError("a step cannot be called before there is a plan")
    return state.board.graph.steps[call.step]


def _text(source: Mapping[str, Any], field: str) -> str:
    value = source.get(field)
    if not isinstance(value, str) or not value:
        raise ValueError(f"the input of the orchestration lacks {field}")
    return value


def _instant(source: Mapping[str, Any], field: str) -> datetime:
    parsed = datetime.fromisoformat(_text(source, field))
    if parsed.tzinfo is None:
        raise ValueError(f"{field} has no time zone")
    return parsed.astimezone(UTC)
