"""One budget account as a pure reducer: reserve, settle, release, close, each idempotent by key.

Never negative; a reservation is granted only while reserved + spent + amount stays within the limits. What was really spent
counts in full even when it is more than was reserved: it happened. Time plays no part, but the shape is that of all limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias, assert_never

from engine.domain.base import JsonObject
from engine.limits.amounts import NOTHING, Amount, Limits, Totals


@dataclass(frozen=True, slots=True)
class Reserve:
    """Set ``amount`` aside. Granted again, without effect, for a key that is reserved or settled."""

    key: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class Settle:
    """Replace the reservation of ``key`` by what was spent. An unknown or settled key stays as it is."""

    key: str
    spent: Amount


@dataclass(frozen=True, slots=True)
class Release:
    """Settle ``key`` at nothing."""

    key: str


@dataclass(frozen=True, slots=True)
class Close:
    """Settle every open reservation whose key begins with ``prefix``: at nothing, or at its full amount (``as_spent``)."""

    prefix: str = ""
    as_spent: bool = False


@dataclass(frozen=True, slots=True)
class Raise:
    """Let money be spent up to ``limit_micro_usd``, if that is more than now."""

    limit_micro_usd: int


BudgetOp: TypeAlias = Reserve | Settle | Release | Close | Raise


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """``granted`` answers a reservation; ``settled`` are the reservations this operation ended, with what each had set aside
    and what was spent."""

    granted: bool = True
    settled: tuple[tuple[str, Amount, Amount], ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetAccount:
    """The account: its limits, its open reservations and its settled keys with what each cost.

    It grows by one entry per key; whoever holds it for long bounds the number of keys.
    """

    limits: Limits
    open: Mapping[str, Amount] = field(default_factory=lambda: MappingProxyType({}))
    settled: Mapping[str, Amount] = field(default_factory=lambda: MappingProxyType({}))
    totals: Totals = field(default=Totals())

    def used(self, prefix: str) -> Amount:
        """What all keys that begin with ``prefix`` have set aside and spent."""
        entries = (*self.open.items(), *self.settled.items())
        return sum((amount for key, amount in entries if key.startswith(prefix)), NOTHING)

    def to_json(self) -> JsonObject:
        """JSON with integers only."""
        return {
            "limits": [self.limits.micro_usd, self.limits.tokens],
            "open": {key: [a.micro_usd, a.tokens] for key, a in self.open.items()},
            "settled": {key: [a.micro_usd, a.tokens] for key, a in self.settled.items()},
        }

    @classmethod
    def from_json(cls, state: JsonObject) -> BudgetAccount:
        """The account of ``to_json``."""
        is_open = {key: Amount(*pair) for key, pair in state["open"].items()}
        settled = {key: Amount(*pair) for key, pair in state["settled"].items()}
        totals = Totals(sum(is_open.values(), NOTHING), sum(settled.values(), NOTHING))
        return cls(Limits(*state["limits"]), _frozen(is_open), _frozen(settled), totals)


def apply_budget(state: BudgetAccount, op: BudgetOp, now_ms: int = 0) -> tuple[BudgetAccount, BudgetResult]:
    """The account after ``op``, and what came of it. ``now_ms`` is unused: money does not age within an account."""
    match op:
        case Reserve(key, amount):
            return _reserve(state, key, amount)
        case Settle(key, spent):
            return _settle(state, {key: spent} if key in state.open else {})
        case Release(key):
            return _settle(state, {key: NOTHING} if key in state.open else {})
        case Close(prefix, as_spent):
            ended = {key: amount for key, amount in state.open.items() if key.startswith(prefix)}
            return _settle(state, ended if as_spent else dict.fromkeys(ended, NOTHING))
        case Raise(limit_micro_usd):
            now = state.limits.micro_usd
            limits = Limits(now if now is None else max(now, limit_micro_usd), state.limits.tokens)
            return replace(state, limits=limits), BudgetResult()
        case _:
            assert_never(op)


def _reserve(state: BudgetAccount, key: str, amount: Amount) -> tuple[BudgetAccount, BudgetResult]:
    if key in state.open or key in state.settled:
        return state, BudgetResult()
    totals = state.totals.reserve(amount, state.limits)
    if totals is None:
        return state, BudgetResult(granted=False)
    return BudgetAccount(state.limits, _frozen({**state.open, key: amount}), state.settled, totals), BudgetResult()


def _settle(state: BudgetAccount, ended: Mapping[str, Amount]) -> tuple[BudgetAccount, BudgetResult]:
    if not ended:
        return state, BudgetResult()
    totals = state.totals
    for key, spent in ended.items():
        totals = totals.settle(state.open[key], spent)
    left = {key: amount for key, amount in state.open.items() if key not in ended}
    account = BudgetAccount(state.limits, _frozen(left), _frozen({**state.settled, **ended}), totals)
    return account, BudgetResult(settled=tuple((key, state.open[key], spent) for key, spent in ended.items()))


def _frozen(entries: dict[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(entries)
