"""Writing down what happened to a step: the record, its event and the outcome the scheduler gets, always the same three."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from engine.domain.errors import LivoaError
from engine.domain.events import EventType, StepEventData, new_event
from engine.domain.masking import mask
from engine.domain.outcomes import Cancelled, Denied, Failed, Skipped, StepOutcome, Succeeded
from engine.domain.run import ErrorInfo, PayloadRef, StepRecord
from engine.domain.skeleton import StepKind
from engine.domain.status import StepStatus
from engine.domain.telemetry_names import METRIC_STEPS_FINISHED
from engine.plan import Step, max_attempts
from engine.ports.calls import StepWrite
from engine.ports.catalog import Catalog
from engine.ports.deps import Deps
from engine.step_runner.task import StepTask


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ends: what the scheduler is told, and what is written down for it."""

    outcome: StepOutcome
    step: StepWrite


@dataclass(frozen=True, slots=True)
class Journal:
    """Writes the records of one attempt.

    ``falls_back``: the step has a fallback, and this attempt is not yet it. ``degraded`` says for which failure it is.
    ``reused_from`` is the run whose result answers it.
    """

    task: StepTask
    deps: Deps
    kind: StepKind = "call"
    capability: str | None = None
    max_attempts: int = 1
    skips_failures: bool = False
    falls_back: bool = False
    degraded: str | None = None
    reused_from: str | None = None
    input_sha256: str | None = None
    started_at: datetime | None = None

    def with_inputs(self, input_sha256: str, started_at: datetime) -> Journal:
        """The same journal once inputs are bound."""
        return replace(self, input_sha256=input_sha256, started_at=started_at)

    def has_another(self, retryable: bool) -> bool:
        """True when a failure of this attempt is followed by another attempt."""
        return (retryable or self.falls_back) and self.task.attempt < self.max_attempts

    def is_repeated(self, retryable: bool) -> bool:
        """True when a failure of this attempt is followed by the same call, under the same key."""
        return retryable and self.task.attempt < self.max_attempts - self.falls_back

    async def started(self, *, item_count: int | None = None) -> bool:
        """Record the start. False when a final or later record exists: the caller must not go on."""
        return await self._put(self.start(item_count=item_count))

    def start(self, *, item_count: int | None = None) -> StepWrite:
        """The record of the start, with its event."""
        event = new_event(EventType.STEP_STARTED, self._data(), f"step.started/{self.task.attempt_key}")
        return StepWrite(self._record(StepStatus.RUNNING, item_count=item_count), (event,))

    async def succeeded(
        self, output: PayloadRef | None, *, cost_micro_usd: int = 0, item_count: int | None = None
    ) -> StepOutcome:
        """Record success with its output."""
        return await self.end(self.success(output, cost_micro_usd=cost_micro_usd, item_count=item_count))

    def success(self, output: PayloadRef | None, *, cost_micro_usd: int = 0, item_count: int | None = None) -> Ending:
        """The ending of an attempt that succeeded with this output."""
        now = self.deps.clock.now()
        record = self._record(
            StepStatus.SUCCEEDED, output_ref=output, finished_at=now, cost=cost_micro_usd, item_count=item_count
        )
        data = self._data(duration_ms=record.duration_ms, item_count=item_count)
        return self._ending(Succeeded(item_count=item_count), record, EventType.STEP_SUCCEEDED, data, cost_micro_usd)

    async def failed(
        self, code: str, message: str, *, retryable: bool, retry_after_s: float | None = None
    ) -> StepOutcome:
        """Record a failure. See ``failure``."""
        return await self.end(self.failure(code, message, retryable=retryable, retry_after_s=retry_after_s))

    def failure(
        self,
        code: str,
        message: str,
        *,
        retryable: bool,
        retry_after_s: float | None = None,
        cost_micro_usd: int = 0,
        agents_words: bool = False,
    ) -> Ending:
        """The ending of an attempt that failed. With attempts left and hope, the step waits for the next one; otherwise it has
        failed, or is skipped with the failure's code when the plan can do without it (``on_failure: skip``). ``agents_words``:
        the message is not ours and may quote what the agent was given, so it stands in the step's record and in no event."""
        message = mask(message[:500])
        again = self.has_another(retryable)
        skips = self.skips_failures and not again
        record = self._record(
            StepStatus.WAITING if again else StepStatus.SKIPPED if skips else StepStatus.FAILED,
            error=ErrorInfo(code=code, message=message),
            finished_at=self.deps.clock.now(),
            cost=cost_micro_usd,
            retryable=retryable,
        )
        last = EventType.STEP_SKIPPED if skips else EventType.STEP_FAILED
        event_type = EventType.STEP_RETRIED if again else last
        said = None if agents_words else message
        data = self._data(code=code, message=said, duration_ms=record.duration_ms)
        failed = Failed(code=code, retryable=retryable or again, retry_after_s=retry_after_s)
        outcome: StepOutcome = Skipped(code=code) if skips else failed
        return self._ending(outcome, record, event_type, data, cost_micro_usd)

    async def awaiting(self, approval_id: str) -> bool:
        """Record that the step waits for this approval; who asks for it tells the event log. False as in ``started``."""
        record = self._record(StepStatus.WAITING).model_copy(update={"approval_id": approval_id})
        return await self.deps.runs.put_step(record)

    async def denied(self, code: str, message: str) -> StepOutcome:
        """Record a policy denial."""
        record = self._record(
            StepStatus.DENIED, error=ErrorInfo(code=code, message=message[:500]), finished_at=self.deps.clock.now()
        )
        data = self._data(code=code, message=message[:500])
        return await self.end(self._ending(Denied(code=code), record, EventType.STEP_DENIED, data))

    async def skipped(self, code: str, message: str) -> StepOutcome:
        """Record a skip."""
        record = self._record(
            StepStatus.SKIPPED, error=ErrorInfo(code=code, message=message), finished_at=self.deps.clock.now()
        )
        data = self._data(code=code, message=message)
        return await self.end(self._ending(Skipped(code=code), record, EventType.STEP_SKIPPED, data))

    def _data(
        self,
        *,
        code: str | None = None,
        message: str | None = None,
        duration_ms: int | None = None,
        item_count: int | None = None,
    ) -> StepEventData:
        return StepEventData(
            step_id=self.task.record_id,
            attempt=self.task.attempt,
            item=self.task.item,
            capability=self.capability,
            code=code,
            message=message,
            duration_ms=duration_ms,
            item_count=item_count,
        )

    def _record(
        self,
        status: StepStatus,
        *,
        output_ref: PayloadRef | None = None,
        finished_at: datetime | None = None,
        error: ErrorInfo | None = None,
        cost: int = 0,
        retryable: bool = False,
        item_count: int | None = None,
    ) -> StepRecord:
        return StepRecord(
            tenant_id=self.task.tenant_id,
            run_id=self.task.run_id,
            step_id=self.task.record_id,
            item=self.task.item,
            status=status,
            attempt=self.task.attempt,
            capability=self.capability,
            kind=self.kind,
            input_sha256=self.input_sha256,
            output_ref=output_ref,
            item_count=item_count,
            error=error,
            retryable=retryable,
            started_at=self.started_at,
            finished_at=finished_at,
            cost_micro_usd=cost,
            degraded=self.degraded,
            reused_from=self.reused_from,
        )

    async def known(self) -> StepOutcome:
        """What another delivery, or a later attempt, has made of the step while this one was under way."""
        return await self.found() or Failed(code="step.superseded")

    async def found(self) -> StepOutcome | None:
        """What the stored record says of this attempt. None when it says nothing."""
        task = self.task
        stored = await self.deps.runs.get_step(task.tenant_id, task.run_id, task.record_id, task.item)
        return answered(stored, task.attempt) if stored is not None else None

    def _ending(
        self,
        outcome: StepOutcome,
        record: StepRecord,
        event_type: EventType,
        data: StepEventData,
        cost_micro_usd: int = 0,
    ) -> Ending:
        event = new_event(event_type, data, f"{event_type.value}/{self.task.attempt_key}")
        return Ending(outcome, StepWrite(record, (event,), cost_micro_usd))

    async def _put(self, step: StepWrite) -> bool:
        return await self.deps.runs.put_step(step.record, step.events, add_cost_micro_usd=step.add_cost_micro_usd)

    async def end(self, ending: Ending, write: Callable[[], Awaitable[bool]] | None = None) -> StepOutcome:
        """Write the record, alone or by ``write``, which answers like ``put_step``. When another delivery was first, its record
        is the outcome and ours is void."""
        try:
            written = await (write() if write is not None else self._put(ending.step))
        except LivoaError:
            # The store may have done it and lost its answer; raising then would count a finished step as a lost one.
            known = await self.found()
            if known is None:
                raise
            return known
        if not written:
            return await self.known()
        self.deps.telemetry.count(METRIC_STEPS_FINISHED, attributes={"status": ending.step.record.status.value})
        return ending.outcome


def allowed_attempts(step: Step, catalog: Catalog) -> int:
    """How often the step may be tried, by the same rule the scheduler's skeleton was made with."""
    return max_attempts(step, catalog.capabilities.get(step.capability or ""))


def reason_to_fall_back(record: StepRecord | None, journal: Journal) -> str | None:
    """Why this attempt calls the fallback, or None when it calls the capability itself.

    It does when an attempt before it did, when it is the last one, or when the capability failed in a way that repeating does not
    help. Asked again about the same attempt, the record gives the same answer.
    """
    last = journal.task.attempt >= journal.max_attempts
    if record is None:  # every attempt before this one died without a trace
        return "fallback: activity.crashed" if last else None
    if record.degraded is not None:
        return record.degraded
    failed = record.status is StepStatus.WAITING and record.error is not None and record.approval_id is None
    code = record.error.code if failed and record.error is not None else "activity.crashed"
    given_up = failed and not record.retryable and record.attempt < journal.task.attempt
    return f"fallback: {code}"[:200] if given_up or last else None


def outcome_of(record: StepRecord) -> StepOutcome | None:
    """The outcome that a record stands for, or None while it is open."""
    code = record.error.code if record.error is not None else f"step.{record.status.value}"
    match record.status:
        case StepStatus.SUCCEEDED:
            return Succeeded(item_count=record.item_count)
        case StepStatus.FAILED:
            return Failed(code=code, retryable=record.retryable)
        case StepStatus.DENIED:
            return Denied(code=code)
        case StepStatus.SKIPPED:
            return Skipped(code=code)
        case StepStatus.CANCELLED:
            return Cancelled(code=code)
        case StepStatus.PENDING | StepStatus.WAITING | StepStatus.RUNNING:
            return None


def answered(record: StepRecord, attempt: int) -> StepOutcome | None:
    """What is already known about ``attempt``: the step is final, a later attempt has begun, or this one failed and the next
    is due. None when the attempt is still to be made (it may wait for a person), or was begun and nobody knows how it ended."""
    finished = outcome_of(record)
    if finished is not None:
        return finished
    if record.attempt > attempt:
        return Failed(code="step.superseded")
    if record.attempt == attempt and record.status is StepStatus.WAITING and record.approval_id is None:
        return Failed(code=record.error.code if record.error is not None else "step.waiting", retryable=True)
    return None
