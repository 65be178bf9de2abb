"""Results of deterministic capabilities: one row for each thing asked, referring to the payload of the run that made it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from engine.adapters.sql.engine import Database
from engine.adapters.sql.tables import RESULT_CACHE
from engine.domain.base import iso_utc
from engine.domain.run import PayloadRef
from engine.ports.result_cache import CachedResult

_OF_KEY = (
    RESULT_CACHE.c.tenant_id == bindparam("p_tenant"),
    RESULT_CACHE.c.asked_sha256 == bindparam("p_asked"),
)
_ROW = select(RESULT_CACHE.c.run_id, RESULT_CACHE.c.output, RESULT_CACHE.c.made_at).where(*_OF_KEY)


class SqlResultCache:
    """Cached results in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: str, asked_sha256: str) -> CachedResult | None:
        """See ``ResultCache.get``."""
        where = {"p_tenant": tenant_id, "p_asked": asked_sha256}
        row = await self._database.read(lambda connection: connection.execute(_ROW, where).one_or_none())
        if row is None:
            return None
        output = PayloadRef.model_validate_json(row.output)
        return CachedResult(row.run_id, output, datetime.fromisoformat(row.made_at))

    async def put(self, tenant_id: str, asked_sha256: str, result: CachedResult) -> None:
        """See ``ResultCache.put``."""
        await self._database.write(lambda connection: _put(connection, tenant_id, asked_sha256, result))

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """See ``ResultCache.remove_run``."""
        gone = delete(RESULT_CACHE).where(RESULT_CACHE.c.tenant_id == tenant_id, RESULT_CACHE.c.run_id == run_id)
        return await self._database.write(lambda connection: connection.execute(gone).rowcount)


def _put(connection: Connection, tenant_id: str, asked_sha256: str, result: CachedResult) -> None:
    where = {"p_tenant": tenant_id, "p_asked": asked_sha256}
    facts = {"run_id": result.run_id, "output": result.output.model_dump_json(), "made_at": iso_utc(result.made_at)}
    row = connection.execute(_ROW.with_for_update(), where).one_or_none()
    if row is None:
        # A twin that was first refuses this insert, and the second try finds its row.
        connection.execute(insert(RESULT_CACHE), {"tenant_id": tenant_id, "asked_sha256": asked_sha256} | facts)
    elif row.made_at < facts["made_at"]:
        connection.execute(update(RESULT_CACHE).where(*_OF_KEY).values(**facts), where)
