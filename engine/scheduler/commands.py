"""What the scheduler wants done, and what it is told. Both unions are closed.

A call is named by its own fields, so an answer can be matched to the call it belongs to without any table of open work.
None of them carries inputs, outputs or text of anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from engine.domain.outcomes import StepOutcome
from engine.domain.status import RunStatus
from engine.scheduler.graph import Graph


@dataclass(frozen=True, slots=True)
class PlanRun:
    """Make, check and vet the plan. ``look`` counts how often this attempt was asked before: a plan that waits for a person is
    asked about again."""

    attempt: int
    look: int = 0


@dataclass(frozen=True, slots=True)
class PerformStep:
    """Run one attempt of step number ``step`` (or of one ``item`` of a map).

    ``look`` counts how often this attempt was asked before: a ``wait`` step is asked again when it is due, one that waits for a
    person when there may be an answer.
    """

    step: int
    attempt: int
    look: int = 0
    item: int | None = None


@dataclass(frozen=True, slots=True)
class ExpandMap:
    """Count the items of a ``for_each`` step and store them. ``look`` counts answers that the run is suspended."""

    step: int
    attempt: int
    look: int = 0


@dataclass(frozen=True, slots=True)
class RunMapPart:
    """Run the items ``first`` … ``first + count - 1`` of a map, at most ``concurrency`` at a time."""

    step: int
    first: int
    count: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class CollectMap:
    """Fold the outputs of a map's items into the output of the step. ``look`` as in ``ExpandMap``."""

    step: int
    attempt: int
    item_count: int
    look: int = 0


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """Plan anew what cannot run because step number ``step`` failed; the ``number``-th repair of this run (from 1). ``look`` as
    in ``PlanRun``."""

    number: int
    step: int
    attempt: int
    look: int = 0


@dataclass(frozen=True, slots=True)
class ComposeAnswer:
    """Compose the answer from what succeeded. ``look`` as in ``ExpandMap``."""

    attempt: int
    look: int = 0


@dataclass(frozen=True, slots=True)
class UndoStep:
    """Undo the effect of step number ``step``, if it had one. ``look`` counts answers that there is more of it to undo."""

    step: int
    attempt: int
    look: int = 0


@dataclass(frozen=True, slots=True)
class FinishRun:
    """Record the final status of the run and of every step."""

    attempt: int
    status: RunStatus
    code: str | None


@dataclass(frozen=True, slots=True)
class AcquireLease:
    """Ask for a place among the runs of the tenant. ``look`` counts how often it was asked for before."""

    look: int


@dataclass(frozen=True, slots=True)
class RenewLease:
    """Keep the place for another lease. Told, not asked: there is no answer."""

    number: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Have one ``Tick`` at ``at``. It replaces the wake-up asked for before."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Listen:
    """Have one ``Announced`` when this external event is raised. Asked for once for each name."""

    event: str


@dataclass(frozen=True, slots=True)
class AwaitResume:
    """Have one ``Resumed`` when this suspension is over. Asked for once for each number by whoever is held by it."""

    number: int


StepCall: TypeAlias = PerformStep | ExpandMap | RunMapPart | CollectMap
RunCall: TypeAlias = PlanRun | RepairPlan | ComposeAnswer | UndoStep | FinishRun
LeaseCall: TypeAlias = AcquireLease | RenewLease
Call: TypeAlias = StepCall | RunCall | LeaseCall
Command: TypeAlias = Call | Listen | AwaitResume | WakeAt


@dataclass(frozen=True, slots=True)
class Planned:
    """A vetted plan, or a vetted new version of it, exists; this is its compiled skeleton."""

    graph: Graph


@dataclass(frozen=True, slots=True)
class Held:
    """There is a plan, and a person must approve it by ``expires_at`` (RFC 3339). ``left_s`` as in ``outcomes.Waiting``."""

    approval_id: str
    expires_at: str
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """There will be no plan: ``status`` is ``denied`` (policy), ``failed`` (rejected, or nothing fits) or ``cancelled``."""

    status: RunStatus
    code: str


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is composed, a step is undone, or the end is recorded."""


@dataclass(frozen=True, slots=True)
class More:
    """Some items of a map are undone, and there are others."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A call of the run itself failed: an expected failure, or an exception that crossed the durable border."""

    code: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Paused:
    """The run is suspended for the ``number``-th time: nothing was done."""

    number: int


RunOutcome: TypeAlias = Planned | Held | Refused | Done | More | Broken | Paused


@dataclass(frozen=True, slots=True)
class Issued:
    """These commands were scheduled at ``at``."""

    commands: tuple[Command, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class StepAnswered:
    """A call for a step returned."""

    call: StepCall
    outcome: StepOutcome
    at: datetime


@dataclass(frozen=True, slots=True)
class RunAnswered:
    """A call for the run as a whole returned."""

    call: RunCall
    outcome: RunOutcome
    at: datetime


@dataclass(frozen=True, slots=True)
class LeaseAnswered:
    """The question for a place returned: ``granted``, ``full``, ``ended`` (given back before), or ``unknown`` when nobody
    could say."""

    call: AcquireLease
    answer: Literal["granted", "full", "ended", "unknown"]
    at: datetime


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody entitled to it asked the run to stop."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Announced:
    """The store may have what is waited for: a person's answer, a worker's result. A hint: whoever waits for it looks."""

    event: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Resumed:
    """This suspension is over. A hint, as above."""

    number: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Tick:
    """The wake-up rang at ``at``."""

    at: datetime


Event: TypeAlias = Issued | StepAnswered | RunAnswered | LeaseAnswered | CancelRequested | Announced | Resumed | Tick
