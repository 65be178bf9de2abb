"""What is written down around one call of a capability: everything before it, and everything after it.

Before the call: its money is reserved, the step's start recorded with its event, its intent chained. After it: the result is
chained, what was spent settled, the step's record written with its event and cost. A ledger whose stores are one database writes
each of the two as a whole or not at all; elsewhere the stores are written in turn, in the order above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.domain.audit import AuditEntry, AuditRecord
from engine.domain.events import NewEvent
from engine.domain.run import StepRecord


@dataclass(frozen=True, slots=True)
class StepWrite:
    """A step's record with its events and what it cost (micro-USD), as ``RunStore.put_step`` takes them."""

    record: StepRecord
    events: tuple[NewEvent, ...] = ()
    add_cost_micro_usd: int = 0


@dataclass(frozen=True, slots=True)
class Opening:
    """A call that is about to be made. ``key`` is what its money (micro-USD) is reserved under; ``abandoned`` are keys of earlier
    attempts, which may have died with their reservations: they are settled at nothing first."""

    step: StepWrite
    intent: AuditEntry
    key: str
    amount_micro_usd: int
    abandoned: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _of_one_run(self.step.record, self.intent)


@dataclass(frozen=True, slots=True)
class Closing:
    """A call that was made: what came of it, and what it spent (micro-USD) of what was reserved under ``key``."""

    step: StepWrite
    result: AuditEntry
    key: str
    spent_micro_usd: int

    def __post_init__(self) -> None:
        _of_one_run(self.step.record, self.result)


def _of_one_run(step: StepRecord, entry: AuditEntry) -> None:
    if (entry.tenant_id, entry.run_id) != (step.tenant_id, step.run_id):
        raise ValueError("a call's step and its audit entry are of one run of one tenant")


@dataclass(frozen=True, slots=True)
class Opened:
    """The call may be made: all is durable, the intent as this record."""

    intent: AuditRecord


@dataclass(frozen=True, slots=True)
class OutOfBudget:
    """The money is not there, and nothing else was written."""


@dataclass(frozen=True, slots=True)
class Void:
    """Another delivery finished the step, a later attempt has begun, or the run is over. Nothing is reserved under the key."""


@dataclass(frozen=True, slots=True)
class NotIntended:
    """The intent could not be recorded, or nobody knows whether it was, so that there must be no call. What was reserved may
    still be, and the start may be on record: the caller settles and records the failure."""

    error: Exception


OpeningResult = Opened | OutOfBudget | Void | NotIntended


class CallLedger(Protocol):
    """Both writes of a call. Each may be made again, after any failure of it, and then changes nothing that stands."""

    async def open(self, opening: Opening) -> OpeningResult:
        """Reserve, record the start, chain the intent; durable when it is ``Opened``.

        May raise what ``BudgetLedger.reserve`` and ``RunStore.put_step`` raise; a failure over the intent is a result.
        """
        ...

    async def close(self, closing: Closing) -> bool:
        """Chain the result, settle, write the step's record; durable when it returns.

        False when the record is void as in ``RunStore.put_step``: the result is on record and the money settled all the same.
        Raises what ``AuditLog.append``, ``BudgetLedger.settle`` and ``RunStore.put_step`` raise.
        """
        ...
