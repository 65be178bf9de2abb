"""Keys of runs: one row each, which outlives its key so that no second one is made."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, insert, select, update

from engine.adapters.sql.engine import Database
from engine.adapters.sql.tables import RUN_KEYS, RUNS
from engine.adapters.store_rules import bounded
from engine.domain.base import iso_utc
from engine.ports.run_keys import RunKey, WrappedKey

_OF_RUN = (RUN_KEYS.c.tenant_id == bindparam("p_tenant"), RUN_KEYS.c.run_id == bindparam("p_run"))
_ROW = select(RUN_KEYS).where(*_OF_RUN)
_DESTROY = update(RUN_KEYS).where(*_OF_RUN).values(wrapped=None, destroyed_at=bindparam("p_at"))
_OWNERLESS = (
    select(RUN_KEYS)
    .outerjoin(RUNS, and_(RUNS.c.tenant_id == RUN_KEYS.c.tenant_id, RUNS.c.run_id == RUN_KEYS.c.run_id))
    .where(
        RUN_KEYS.c.tenant_id == bindparam("p_tenant"),
        RUN_KEYS.c.created_at < bindparam("p_before"),
        RUN_KEYS.c.destroyed_at.is_(None),
        RUNS.c.run_id.is_(None),
    )
    .order_by(RUN_KEYS.c.created_at, RUN_KEYS.c.run_id)
    .limit(bindparam("p_limit"))
)


class SqlRunKeys:
    """Key records in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: str, run_id: str) -> RunKey | None:
        """See ``RunKeys.get``."""
        where = {"p_tenant": tenant_id, "p_run": run_id}
        row = await self._database.read(lambda connection: connection.execute(_ROW, where).one_or_none())
        return _key_of(row) if row is not None else None

    async def create(self, key: RunKey) -> RunKey:
        """See ``RunKeys.create``."""

        def work(connection: Connection) -> RunKey:
            row = connection.execute(_ROW, {"p_tenant": key.tenant_id, "p_run": key.run_id}).one_or_none()
            if row is not None:
                return _key_of(row)
            # A twin that was first refuses this insert, and the second try finds its row.
            connection.execute(insert(RUN_KEYS), _row(key))
            return key

        return await self._database.write(work)

    async def destroy(self, tenant_id: str, run_id: str, at: datetime) -> RunKey:
        """See ``RunKeys.destroy``."""
        where = {"p_tenant": tenant_id, "p_run": run_id}

        def work(connection: Connection) -> RunKey:
            row = connection.execute(_ROW.with_for_update(), where).one_or_none()
            if row is None:
                gone = RunKey(tenant_id, run_id, "", None, at, at)
                connection.execute(insert(RUN_KEYS), _row(gone))
                return gone
            if row.destroyed_at is None:
                connection.execute(_DESTROY, where | {"p_at": iso_utc(at)})
                row = connection.execute(_ROW, where).one()
            return _key_of(row)

        return await self._database.write(work)

    async def ownerless(self, tenant_id: str, *, created_before: datetime, limit: int) -> tuple[RunKey, ...]:
        """See ``RunKeys.ownerless``."""
        where = {"p_tenant": tenant_id, "p_before": iso_utc(created_before), "p_limit": bounded(limit)}
        rows = await self._database.read(lambda connection: connection.execute(_OWNERLESS, where).all())
        return tuple(map(_key_of, rows))


def _row(key: RunKey) -> dict[str, Any]:
    wrapped = key.wrapped
    return {
        "tenant_id": key.tenant_id,
        "run_id": key.run_id,
        "key_id": key.key_id,
        "kek_id": wrapped.kek_id if wrapped is not None else "",
        "wrapped": base64.b64encode(wrapped.data).decode() if wrapped is not None else None,
        "created_at": iso_utc(key.created_at),
        "destroyed_at": iso_utc(key.destroyed_at) if key.destroyed_at is not None else None,
    }


def _key_of(row: Row[Any]) -> RunKey:
    wrapped = WrappedKey(row.kek_id, base64.b64decode(row.wrapped)) if row.wrapped is not None else None
    ended = datetime.fromisoformat(row.destroyed_at) if row.destroyed_at is not None else None
    return RunKey(row.tenant_id, row.run_id, row.key_id, wrapped, datetime.fromisoformat(row.created_at), ended)
