"""Budget accounts: a document per run, per reservation, and per tenant and day, all of a tenant in one logical partition.

A reservation counts in two accounts and must count in both or in neither; in one partition the three documents are one
transaction. The price is that all reservations of a tenant share what one logical partition can take (10,000 request units a
second, 20 GB). An account holds sums only, so it stays as small as it was, however many steps and attempts a run has; whether a
key is known, and what became of it, its own document tells. All of them expire ``ACCOUNT_TTL_S`` after their last use.

An account that an earlier build wrote as one document is brought over by the first write to it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import TypeVar
from weakref import WeakValueDictionary

from engine.adapters.cosmos.connection import CosmosConnection, MovedError
from engine.adapters.cosmos.definitions import TENANTS
from engine.adapters.cosmos.former_budgets import account_of, daily_limits_of, is_former, reservations_of
from engine.adapters.cosmos.repository import (
    MAX_BATCH,
    PAGE,
    Create,
    Document,
    Find,
    Operation,
    Put,
    Replace,
    TenantRepository,
)
from engine.limits.amounts import NOTHING, Amount, Limits, Totals
from engine.ports.budget import BudgetState, DailyLimits, DailyState, Share
from engine.ports.clock import Clock

ACCOUNT_TTL_S = 400 * 24 * 3_600
"""Longer than any run lasts, and than a year's days are asked for."""
SETTLED_AT_ONCE = 40
"""How many reservations one transaction ends at most: each may be of a day of its own, and a transaction has 100 documents."""
BUDGET_SCOPE = "budget"
_OF_PREFIX = "c.kind = 'reservation' AND c.run = @run AND STARTSWITH(c.key, @prefix)"
_OPEN = "c.kind = 'reservation' AND c.run = @run AND STARTSWITH(c.key, @prefix) AND c.open = true"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Account:
    """A run's account as it is stored, and the document that it was read from."""

    limits: Limits
    daily: Limits
    totals: Totals
    found: Document

    def with_totals(self, totals: Totals) -> Operation:
        return Replace(_account_document(self.found["run"], replace(self, totals=totals)), self.found["_etag"])


class CosmosBudgetLedger:
    """Budget accounts in a Cosmos DB database. A day is one of ``clock``, in UTC."""

    def __init__(self, connection: CosmosConnection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    async def open(
        self,
        tenant_id: str,
        run_id: str,
        *,
        limit_micro_usd: int,
        limit_tokens: int | None = None,
        daily: DailyLimits | None = None,
    ) -> None:
        """See ``BudgetLedger.open``."""
        of_day = Limits(daily.micro_usd, daily.tokens) if daily is not None else Limits()
        new = _account_document(run_id, _Account(Limits(limit_micro_usd, limit_tokens), of_day, Totals(), {}))

        def keep(found: Document | None) -> tuple[None, Document | None]:
            return None, new if found is None else None

        await self._of(tenant_id).update(BUDGET_SCOPE, new["id"], keep)

    async def reserve(
        self,
        tenant_id: str,
        run_id: str,
        key: str,
        *,
        amount_micro_usd: int,
        tokens: int = 0,
        share: Share | None = None,
    ) -> bool:
        """See ``BudgetLedger.reserve``."""
        amount, today = Amount(amount_micro_usd, tokens), self._clock.now().date().isoformat()
        repository = self._of(tenant_id)

        async def attempt() -> bool:
            account, known, day = await asyncio.gather(
                _account(repository, run_id),
                repository.read(BUDGET_SCOPE, _reservation(run_id, key)),
                repository.read(BUDGET_SCOPE, _day(today)),
            )
            if account is None:
                return False
            if known is not None:
                return True
            of_run = account.totals.reserve(amount, account.limits)
            of_day = _totals(day).reserve(amount, account.daily)
            if of_run is None or of_day is None:
                # Read side by side: the key may have been given its place after it was looked for and before the account was.
                return await repository.read(BUDGET_SCOPE, _reservation(run_id, key)) is not None
            # After the account was read: whoever reserves meanwhile changes it, and this is tried again.
            if share is not None and not await _has_room(repository, run_id, share, amount):
                return False
            reserved = Create(_reservation_document(run_id, key, amount, today))
            await repository.write(
                BUDGET_SCOPE, [account.with_totals(of_run), reserved, _day_operation(today, day, of_day)]
            )
            return True

        return await self._alone(tenant_id, attempt)

    async def settle(
        self, tenant_id: str, run_id: str, key: str, *, spent_micro_usd: int, spent_tokens: int = 0
    ) -> None:
        """See ``BudgetLedger.settle``."""
        spent, repository = Amount(spent_micro_usd, spent_tokens), self._of(tenant_id)

        async def attempt() -> None:
            account, known = await asyncio.gather(
                _account(repository, run_id), repository.read(BUDGET_SCOPE, _reservation(run_id, key))
            )
            if account is not None and known is None:  # or it was looked for before the account was brought over
                known = await repository.read(BUDGET_SCOPE, _reservation(run_id, key))
            if account is not None and known is not None and known["open"]:
                await _end(repository, account, [(known, spent)])

        await self._alone(tenant_id, attempt)

    async def close(self, tenant_id: str, run_id: str, *, prefix: str = "", as_spent: bool = False) -> int:
        """See ``BudgetLedger.close``. Many are ended in several transactions, each of which counts in full."""
        repository = self._of(tenant_id)
        find = Find(_OPEN, {"run": run_id, "prefix": prefix}, SETTLED_AT_ONCE)
        ended: set[str] = set()  # a second try, after an answer that was lost, does not find those of the first

        async def attempt() -> bool:
            account = await _account(repository, run_id)
            rest = await repository.find(
                find, BUDGET_SCOPE
            )  # after the account: before, some keys may have no document yet
            if account is None or not rest:
                return False
            ended.update(document["id"] for document in rest)
            pairs = [(document, Amount(*document["amount"]) if as_spent else NOTHING) for document in rest]
            await _end(repository, account, pairs)
            return True

        while await self._alone(tenant_id, attempt):
            pass
        return len(ended)

    async def raise_limit(self, tenant_id: str, run_id: str, *, limit_micro_usd: int) -> BudgetState | None:
        """See ``BudgetLedger.raise_limit``."""
        repository = self._of(tenant_id)

        async def attempt() -> _Account | None:
            account = await _account(repository, run_id)
            if account is None or (account.limits.micro_usd or 0) >= limit_micro_usd:
                return account
            raised = replace(account, limits=Limits(limit_micro_usd, account.limits.tokens))
            await repository.write(BUDGET_SCOPE, [raised.with_totals(raised.totals)])
            return raised

        return _state(await self._alone(tenant_id, attempt))

    async def state(self, tenant_id: str, run_id: str) -> BudgetState | None:
        """See ``BudgetLedger.state``."""
        found = await self._of(tenant_id).read(BUDGET_SCOPE, _run(run_id))
        return _state(_read(found) if found is not None else None)

    async def daily_state(self, tenant_id: str, day: date) -> DailyState:
        """See ``BudgetLedger.daily_state``."""
        totals = _totals(await self._of(tenant_id).read(BUDGET_SCOPE, _day(day.isoformat())))
        reserved, spent = totals.reserved, totals.spent
        return DailyState(reserved.micro_usd, spent.micro_usd, reserved.tokens, spent.tokens)

    async def _alone(self, tenant_id: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Every reservation of a tenant changes the document of its day: those of this process wait for each other."""
        lock = self._locks.setdefault((id(asyncio.get_running_loop()), tenant_id), asyncio.Lock())
        async with lock:
            return await self._connection.settled(attempt)

    def _of(self, tenant_id: str) -> TenantRepository:
        return TenantRepository(self._connection, TENANTS, tenant_id)


def reservations_of_run(run_id: str) -> Find:
    """The reservations of a run in ``BUDGET_SCOPE``, a page of them, for whoever removes the run."""
    return Find("c.kind = 'reservation' AND c.run = @run", {"run": run_id}, PAGE, fields=("id",))


async def _end(repository: TenantRepository, account: _Account, pairs: Iterable[tuple[Document, Amount]]) -> None:
    """Settle open reservations in one transaction. Whoever was quicker has changed the account, so this changes nothing then."""
    of_run, operations = account.totals, list[Operation]()
    days: dict[str, tuple[Document | None, Totals]] = {}
    for reservation, spent in pairs:
        amount, day = Amount(*reservation["amount"]), reservation["day"]
        of_run = _settled(of_run, amount, spent)
        if day not in days:
            found = await repository.read(BUDGET_SCOPE, _day(day))
            days[day] = found, _totals(found)
        days[day] = days[day][0], _settled(days[day][1], amount, spent)
        settled = reservation | {"open": False, "spent": _pair(spent)}
        operations.append(Replace(settled, reservation["_etag"]))
    operations += [_day_operation(day, found, totals) for day, (found, totals) in days.items()]
    await repository.write(BUDGET_SCOPE, [account.with_totals(of_run), *operations])


async def _has_room(repository: TenantRepository, run_id: str, share: Share, amount: Amount) -> bool:
    find = Find(_OF_PREFIX, {"run": run_id, "prefix": share.prefix}, PAGE, fields=("amount", "spent"))
    found = await repository.find(find, BUDGET_SCOPE)
    used = sum((document.get("spent") or document["amount"])[0] for document in found)
    return len(found) < PAGE and used + amount.micro_usd <= share.limit_micro_usd


def _settled(totals: Totals, amount: Amount, spent: Amount) -> Totals:
    try:
        return totals.settle(amount, spent)
    except ValueError as err:
        # The reservation was read while it was open, and the sums after somebody had settled it.
        raise MovedError("a reservation was settled meanwhile") from err


async def _account(repository: TenantRepository, run_id: str) -> _Account | None:
    """The account, for a write. ``MovedError`` when it had to be brought over first: what was read beside it is old by then."""
    found = await repository.read(BUDGET_SCOPE, _run(run_id))
    if found is not None and is_former(found):
        await _bring_over(repository, run_id, found)
        raise MovedError("the account has another layout by now")
    return _read(found) if found is not None else None


def _read(found: Document) -> _Account:
    if is_former(found):
        former = account_of(found)
        return _Account(former.limits, daily_limits_of(found), former.totals, found)
    return _Account(Limits(*found["limits"]), Limits(*found["daily"]), _totals(found), found)


async def _bring_over(repository: TenantRepository, run_id: str, found: Document) -> None:
    """Give each key of a former account its document, and then the account its sums.

    Every transaction holds that the account is still as it was read, and nobody looks at the keys' documents before the last one:
    stopping in between loses nothing, and of two that do this one gives way.
    """
    text, account = found["document"], _account_document(run_id, _read(found))
    documents = [_former_document(run_id, *each) for each in reservations_of(found)]
    while True:
        some, rest = documents[: MAX_BATCH - 1], documents[MAX_BATCH - 1 :]
        try:
            await repository.write(BUDGET_SCOPE, [Replace(found if rest else account, found["_etag"]), *map(Put, some)])
        except MovedError:
            pass  # another process brings the same account over, or an earlier build has used it
        else:
            if not rest:
                return
            documents = rest
        again = await repository.read(BUDGET_SCOPE, found["id"])
        if again is None or again.get("document") != text:
            raise MovedError("the account was used, or brought over, meanwhile")
        found = again


def _former_document(run_id: str, key: str, amount: Amount, day: str, is_open: bool) -> Document:
    document = _reservation_document(run_id, key, amount, day)
    return document if is_open else document | {"open": False, "spent": _pair(amount)}


def _state(account: _Account | None) -> BudgetState | None:
    if account is None:
        return None
    reserved, spent, limits = account.totals.reserved, account.totals.spent, account.limits
    limit = limits.micro_usd if limits.micro_usd is not None else 0
    return BudgetState(reserved.micro_usd, spent.micro_usd, limit, reserved.tokens, spent.tokens, limits.tokens)


def _run(run_id: str) -> str:
    return f"run:{run_id}"


def _reservation(run_id: str, key: str) -> str:
    """A key may hold what an id of a document may not, and be longer."""
    return f"key:{run_id}:{hashlib.sha256(key.encode()).hexdigest()}"


def _day(day: str) -> str:
    return f"day:{day}"


def _pair(amount: Amount) -> list[int]:
    return [amount.micro_usd, amount.tokens]


def _totals(found: Document | None) -> Totals:
    if found is None:
        return Totals()
    reserved, spent = found["totals"]
    return Totals(Amount(*reserved), Amount(*spent))


def _day_operation(day: str, found: Document | None, totals: Totals) -> Operation:
    pairs = [_pair(totals.reserved), _pair(totals.spent)]
    document = {"id": _day(day), "kind": "day", "totals": pairs, "ttl": ACCOUNT_TTL_S}
    return Create(document) if found is None else Replace(document, found["_etag"])


def _reservation_document(run_id: str, key: str, amount: Amount, day: str) -> Document:
    return {
        "id": _reservation(run_id, key),
        "kind": "reservation",
        "run": run_id,
        "key": key,
        "amount": _pair(amount),
        "day": day,
        "open": True,
        "ttl": ACCOUNT_TTL_S,
    }


def _account_document(run_id: str, account: _Account) -> Document:
    return {
        "id": _run(run_id),
        "kind": "account",
        "run": run_id,
        "limits": [account.limits.micro_usd, account.limits.tokens],
        "daily": [account.daily.micro_usd, account.daily.tokens],
        "totals": [_pair(account.totals.reserved), _pair(account.totals.spent)],
        "ttl": ACCOUNT_TTL_S,
    }
