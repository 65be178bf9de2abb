"""Budget accounts. Every decision is made while the account's row is held, so no number of reservations can overshoot."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from engine.adapters.sql.engine import Database
from engine.adapters.sql.tables import BUDGETS, RESERVATIONS
from engine.ports.budget import BudgetState

_OF_RUN = (BUDGETS.c.tenant_id == bindparam("p_tenant"), BUDGETS.c.run_id == bindparam("p_run"))
_ACCOUNT = select(BUDGETS.c.reserved_micro_usd, BUDGETS.c.spent_micro_usd, BUDGETS.c.limit_micro_usd).where(*_OF_RUN)
_MOVE = (
    update(BUDGETS)
    .where(*_OF_RUN)
    .values(
        reserved_micro_usd=BUDGETS.c.reserved_micro_usd + bindparam("p_reserved"),
        spent_micro_usd=BUDGETS.c.spent_micro_usd + bindparam("p_spent"),
    )
)
_OF_KEY = (
    RESERVATIONS.c.tenant_id == bindparam("p_tenant"),
    RESERVATIONS.c.run_id == bindparam("p_run"),
    RESERVATIONS.c.key == bindparam("p_key"),
)
_AMOUNT = select(RESERVATIONS.c.amount_micro_usd).where(*_OF_KEY)
_ACCOUNT_AND_AMOUNT = _ACCOUNT.add_columns(_AMOUNT.scalar_subquery().label("known")).with_for_update()
_SETTLE = (
    update(RESERVATIONS)
    .where(*_OF_KEY, RESERVATIONS.c.spent_micro_usd.is_(None))
    .values(spent_micro_usd=bindparam("p_spent"))
)


class SqlBudgetLedger:
    """Budget accounts in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, tenant_id: str, run_id: str, *, limit_micro_usd: int) -> None:
        """See ``BudgetLedger.open``."""
        _not_negative(limit_micro_usd)
        account = {
            "tenant_id": tenant_id,
            "run_id": run_id,
            "limit_micro_usd": limit_micro_usd,
            "reserved_micro_usd": 0,
            "spent_micro_usd": 0,
        }

        def work(connection: Connection) -> None:
            if connection.execute(_ACCOUNT, {"p_tenant": tenant_id, "p_run": run_id}).one_or_none() is None:
                connection.execute(insert(BUDGETS), account)

        await self._database.write(work)

    async def reserve(self, tenant_id: str, run_id: str, key: str, *, amount_micro_usd: int) -> bool:
        """See ``BudgetLedger.reserve``."""
        _not_negative(amount_micro_usd)
        return await self._database.write(
            lambda connection: _reserve(connection, tenant_id, run_id, key, amount_micro_usd)
        )

    async def settle(self, tenant_id: str, run_id: str, key: str, *, spent_micro_usd: int) -> None:
        """See ``BudgetLedger.settle``."""
        _not_negative(spent_micro_usd)
        await self._database.write(lambda connection: _settle(connection, tenant_id, run_id, key, spent_micro_usd))

    async def state(self, tenant_id: str, run_id: str) -> BudgetState | None:
        """See ``BudgetLedger.state``."""
        parameters = {"p_tenant": tenant_id, "p_run": run_id}
        row = await self._database.read(lambda connection: connection.execute(_ACCOUNT, parameters).one_or_none())
        return _state(row) if row is not None else None


def _reserve(connection: Connection, tenant_id: str, run_id: str, key: str, amount: int) -> bool:
    run = {"p_tenant": tenant_id, "p_run": run_id}
    row = connection.execute(_ACCOUNT_AND_AMOUNT, run | {"p_key": key}).one_or_none()
    if row is None:
        return False
    # PostgreSQL may have looked for the key before it waited for the account; a twin reserved meanwhile then refuses the
    # insert below, and the second try finds it.
    if row.known is not None:
        return True
    state = _state(row)
    if state.reserved_micro_usd + state.spent_micro_usd + amount > state.limit_micro_usd:
        return False
    reservation = {"tenant_id": tenant_id, "run_id": run_id, "key": key, "amount_micro_usd": amount}
    connection.execute(insert(RESERVATIONS), reservation | {"spent_micro_usd": None})
    connection.execute(_MOVE, run | {"p_reserved": amount, "p_spent": 0})
    return True


def _settle(connection: Connection, tenant_id: str, run_id: str, key: str, spent: int) -> None:
    of_key = {"p_tenant": tenant_id, "p_run": run_id, "p_key": key}
    amount = connection.execute(_AMOUNT, of_key).scalar()
    # Whoever turns the null into a figure moves the money; a second settlement finds no null.
    if amount is not None and connection.execute(_SETTLE, of_key | {"p_spent": spent}).rowcount == 1:
        connection.execute(_MOVE, {"p_tenant": tenant_id, "p_run": run_id, "p_reserved": -amount, "p_spent": spent})


def _state(row: Row[*tuple[Any, ...]]) -> BudgetState:
    return BudgetState(row.reserved_micro_usd, row.spent_micro_usd, row.limit_micro_usd)


def _not_negative(amount_micro_usd: int) -> None:
    if amount_micro_usd < 0:
        raise ValueError("money in a budget is not negative")
