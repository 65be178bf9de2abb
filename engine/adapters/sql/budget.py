"""Budget accounts. Every decision is made while the accounts' rows are held, so no number of reservations can overshoot.

The run's row is locked before that of its tenant's day, always in this order, and several days in order of date.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from engine.adapters.sql.engine import Database
from engine.adapters.sql.prepared import Prepared
from engine.adapters.sql.tables import BUDGETS, DAILY_BUDGETS, RESERVATIONS
from engine.limits.amounts import NOTHING, Amount, Limits, Totals
from engine.ports.budget import BudgetState, DailyLimits, DailyState, Share

_OF_RUN = (BUDGETS.c.tenant_id == bindparam("p_tenant"), BUDGETS.c.run_id == bindparam("p_run"))
_SELECT_ACCOUNT = select(
    BUDGETS.c.reserved_micro_usd,
    BUDGETS.c.spent_micro_usd,
    BUDGETS.c.limit_micro_usd,
    BUDGETS.c.reserved_tokens,
    BUDGETS.c.spent_tokens,
    BUDGETS.c.limit_tokens,
    BUDGETS.c.daily_limit_micro_usd,
    BUDGETS.c.daily_limit_tokens,
).where(*_OF_RUN)
_ACCOUNT = Prepared(_SELECT_ACCOUNT)
_LOCKED_ACCOUNT = Prepared(_SELECT_ACCOUNT.with_for_update())
_SET_RUN = Prepared(
    update(BUDGETS)
    .where(*_OF_RUN)
    .values(
        reserved_micro_usd=bindparam("p_reserved"),
        spent_micro_usd=bindparam("p_spent"),
        reserved_tokens=bindparam("p_reserved_tokens"),
        spent_tokens=bindparam("p_spent_tokens"),
    )
)
_OF_DAY = (DAILY_BUDGETS.c.tenant_id == bindparam("p_tenant"), DAILY_BUDGETS.c.day == bindparam("p_day"))
_SELECT_DAY = select(
    DAILY_BUDGETS.c.reserved_micro_usd,
    DAILY_BUDGETS.c.spent_micro_usd,
    DAILY_BUDGETS.c.reserved_tokens,
    DAILY_BUDGETS.c.spent_tokens,
).where(*_OF_DAY)
_DAY = Prepared(_SELECT_DAY)
_LOCKED_DAY = Prepared(_SELECT_DAY.with_for_update())
_ADD_DAY = Prepared(insert(DAILY_BUDGETS))
_SET_DAY = Prepared(
    update(DAILY_BUDGETS)
    .where(*_OF_DAY)
    .values(
        reserved_micro_usd=bindparam("p_reserved"),
        spent_micro_usd=bindparam("p_spent"),
        reserved_tokens=bindparam("p_reserved_tokens"),
        spent_tokens=bindparam("p_spent_tokens"),
    )
)
_RESERVED_OF_RUN = (
    RESERVATIONS.c.tenant_id == bindparam("p_tenant"),
    RESERVATIONS.c.run_id == bindparam("p_run"),
)
_RAISE = (
    update(BUDGETS)
    .where(
        BUDGETS.c.tenant_id == bindparam("p_tenant"),
        BUDGETS.c.run_id == bindparam("p_run"),
        BUDGETS.c.limit_micro_usd < bindparam("p_limit"),
    )
    .values(limit_micro_usd=bindparam("p_limit"))
)
_KNOWN = select(RESERVATIONS.c.key).where(*_RESERVED_OF_RUN, RESERVATIONS.c.key == bindparam("p_key"))
_ACCOUNT_AND_KEY = Prepared(_SELECT_ACCOUNT.add_columns(_KNOWN.scalar_subquery().label("known")).with_for_update())
_RESERVE = Prepared(insert(RESERVATIONS))
_OPEN = select(
    RESERVATIONS.c.key, RESERVATIONS.c.amount_micro_usd, RESERVATIONS.c.amount_tokens, RESERVATIONS.c.day
).where(*_RESERVED_OF_RUN, RESERVATIONS.c.spent_micro_usd.is_(None))
_OPEN_OF_KEY = Prepared(_OPEN.where(RESERVATIONS.c.key == bindparam("p_key")))
_OPEN_OF_PREFIX = _OPEN.where(
    func.substr(RESERVATIONS.c.key, 1, bindparam("p_chars")) == bindparam("p_prefix")
).order_by(RESERVATIONS.c.day, RESERVATIONS.c.key)
_USED = select(
    func.coalesce(func.sum(func.coalesce(RESERVATIONS.c.spent_micro_usd, RESERVATIONS.c.amount_micro_usd)), 0)
).where(*_RESERVED_OF_RUN, func.substr(RESERVATIONS.c.key, 1, bindparam("p_chars")) == bindparam("p_prefix"))
_SETTLE = Prepared(
    update(RESERVATIONS)
    .where(*_RESERVED_OF_RUN, RESERVATIONS.c.key == bindparam("p_key"), RESERVATIONS.c.spent_micro_usd.is_(None))
    .values(spent_micro_usd=bindparam("p_spent"), spent_tokens=bindparam("p_spent_tokens"))
)


class SqlBudgetLedger:
    """Budget accounts in a ``Database``, by its clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        limits = Limits(limit_micro_usd, limit_tokens)
        of_day = Limits(daily.micro_usd, daily.tokens) if daily is not None else Limits()
        account = {
            "tenant_id": tenant_id,
            "run_id": run_id,
            "limit_micro_usd": limits.micro_usd,
            "limit_tokens": limits.tokens,
            "daily_limit_micro_usd": of_day.micro_usd,
            "daily_limit_tokens": of_day.tokens,
            "reserved_micro_usd": 0,
            "spent_micro_usd": 0,
            "reserved_tokens": 0,
            "spent_tokens": 0,
        }

        def work(connection: Connection) -> None:
            if _ACCOUNT.first(connection, {"p_tenant": tenant_id, "p_run": run_id}) is None:
                connection.execute(insert(BUDGETS), account)

        await self._database.write(work)

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
        amount = Amount(amount_micro_usd, tokens)
        day = self._database.clock.now().date().isoformat()
        return await self._database.write(
            lambda connection: reserve_in(connection, tenant_id, run_id, key, amount, day, share)
        )

    async def settle(
        self, tenant_id: str, run_id: str, key: str, *, spent_micro_usd: int, spent_tokens: int = 0
    ) -> None:
        """See ``BudgetLedger.settle``."""
        spent = Amount(spent_micro_usd, spent_tokens)
        await self._database.write(lambda connection: settle_in(connection, tenant_id, run_id, key, spent))

    async def close(self, tenant_id: str, run_id: str, *, prefix: str = "", as_spent: bool = False) -> int:
        """See ``BudgetLedger.close``."""
        run = {"p_tenant": tenant_id, "p_run": run_id}

        def work(connection: Connection) -> int:
            rows = connection.execute(_OPEN_OF_PREFIX, run | {"p_chars": len(prefix), "p_prefix": prefix}).all()
            return sum(_end(connection, run, row, _amount(row) if as_spent else NOTHING) for row in rows)

        return await self._database.write(work)

    async def raise_limit(self, tenant_id: str, run_id: str, *, limit_micro_usd: int) -> BudgetState | None:
        """See ``BudgetLedger.raise_limit``."""
        parameters = {"p_tenant": tenant_id, "p_run": run_id, "p_limit": limit_micro_usd}
        await self._database.write(lambda connection: connection.execute(_RAISE, parameters))
        return await self.state(tenant_id, run_id)

    async def state(self, tenant_id: str, run_id: str) -> BudgetState | None:
        """See ``BudgetLedger.state``."""
        parameters = {"p_tenant": tenant_id, "p_run": run_id}
        row = await self._database.read(lambda connection: _ACCOUNT.first(connection, parameters))
        if row is None:
            return None
        return BudgetState(
            row.reserved_micro_usd,
            row.spent_micro_usd,
            row.limit_micro_usd,
            row.reserved_tokens,
            row.spent_tokens,
            row.limit_tokens,
        )

    async def daily_state(self, tenant_id: str, day: date) -> DailyState:
        """See ``BudgetLedger.daily_state``."""
        parameters = {"p_tenant": tenant_id, "p_day": day.isoformat()}
        row = await self._database.read(lambda connection: _DAY.first(connection, parameters))
        return DailyState(*row) if row is not None else DailyState()


def settle_in(connection: Connection, tenant_id: str, run_id: str, key: str, spent: Amount) -> None:
    """``settle`` within a transaction, which holds the accounts of the run and of the day from then on."""
    run = {"p_tenant": tenant_id, "p_run": run_id}
    for row in _OPEN_OF_KEY.all(connection, run | {"p_key": key}):
        _end(connection, run, row, spent)


def reserve_in(
    connection: Connection,
    tenant_id: str,
    run_id: str,
    key: str,
    amount: Amount,
    day: str,
    share: Share | None = None,
) -> bool:
    """``reserve`` within a transaction, which holds the accounts of the run and of the day from then on."""
    run = {"p_tenant": tenant_id, "p_run": run_id}
    row = _ACCOUNT_AND_KEY.first(connection, run | {"p_key": key})
    if row is None:
        return False
    # PostgreSQL may have looked for the key before it waited for the account; a twin reserved meanwhile then refuses the
    # insert below, and the second try finds it.
    if row.known is not None:
        return True
    of_run = _totals(row).reserve(amount, Limits(row.limit_micro_usd, row.limit_tokens))
    if of_run is None or (share is not None and not _has_room(connection, run, share, amount)):
        return False
    of_day = _day(connection, tenant_id, day).reserve(amount, Limits(row.daily_limit_micro_usd, row.daily_limit_tokens))
    if of_day is None:
        return False
    reservation = {
        "tenant_id": tenant_id,
        "run_id": run_id,
        "key": key,
        "amount_micro_usd": amount.micro_usd,
        "amount_tokens": amount.tokens,
        "spent_micro_usd": None,
        "spent_tokens": None,
        "day": day,
    }
    _RESERVE.run(connection, reservation)
    _SET_RUN.run(connection, run | _figures(of_run))
    _SET_DAY.run(connection, {"p_tenant": tenant_id, "p_day": day} | _figures(of_day))
    return True


def _has_room(connection: Connection, run: dict[str, str], share: Share, amount: Amount) -> bool:
    """The account's row is held, so nobody else reserves meanwhile."""
    used = connection.execute(_USED, run | {"p_chars": len(share.prefix), "p_prefix": share.prefix}).scalar_one()
    return int(used) + amount.micro_usd <= share.limit_micro_usd


def _end(connection: Connection, run: dict[str, str], row: Row[*tuple[Any, ...]], spent: Amount) -> bool:
    """Settle one open reservation. Whoever turns the null into a figure moves the money; a second one finds no null."""
    account = _LOCKED_ACCOUNT.first(connection, run)
    figures = {"p_spent": spent.micro_usd, "p_spent_tokens": spent.tokens}
    if _SETTLE.run(connection, run | {"p_key": row.key} | figures) != 1:
        return False
    _SET_RUN.run(connection, run | _figures(_totals(account).settle(_amount(row), spent)))
    if row.day is not None:  # a reservation made before there were accounts of days counts into none
        of_day = _day(connection, run["p_tenant"], row.day).settle(_amount(row), spent)
        _SET_DAY.run(connection, {"p_tenant": run["p_tenant"], "p_day": row.day} | _figures(of_day))
    return True


def _day(connection: Connection, tenant_id: str, day: str) -> Totals:
    """The tenant's day, held until the transaction ends; made on its first reservation."""
    row = _LOCKED_DAY.first(connection, {"p_tenant": tenant_id, "p_day": day})
    if row is not None:
        return _totals(row)
    empty = {"reserved_micro_usd": 0, "spent_micro_usd": 0, "reserved_tokens": 0, "spent_tokens": 0}
    _ADD_DAY.run(connection, {"tenant_id": tenant_id, "day": day} | empty)
    return Totals()


def _totals(row: Row[*tuple[Any, ...]]) -> Totals:
    return Totals(
        Amount(row.reserved_micro_usd, row.reserved_tokens),
        Amount(row.spent_micro_usd, row.spent_tokens),
    )


def _amount(row: Row[*tuple[Any, ...]]) -> Amount:
    return Amount(row.amount_micro_usd, row.amount_tokens)


def _figures(totals: Totals) -> dict[str, int]:
    return {
        "p_reserved": totals.reserved.micro_usd,
        "p_spent": totals.spent.micro_usd,
        "p_reserved_tokens": totals.reserved.tokens,
        "p_spent_tokens": totals.spent.tokens,
    }
