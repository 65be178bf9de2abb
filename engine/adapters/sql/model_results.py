"""Results of model calls: one row per key, with the count of its requests and, at last, its result."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, bindparam, insert, select, update

from engine.adapters.sql.engine import Database
from engine.adapters.sql.tables import MODEL_RESULTS
from engine.domain.errors import LivoaError
from engine.ports.model_results import ModelCallKey, ModelResultRecord

_OF_KEY = (
    MODEL_RESULTS.c.tenant_id == bindparam("p_tenant"),
    MODEL_RESULTS.c.run_id == bindparam("p_run"),
    MODEL_RESULTS.c.plan_version == bindparam("p_version"),
    MODEL_RESULTS.c.node == bindparam("p_node"),
    MODEL_RESULTS.c.prompt_sha256 == bindparam("p_prompt"),
)
_ROW = select(MODEL_RESULTS.c.requests, MODEL_RESULTS.c.document).where(*_OF_KEY)
_COUNT = update(MODEL_RESULTS).where(*_OF_KEY).values(requests=bindparam("p_requests"))
_KEEP = update(MODEL_RESULTS).where(*_OF_KEY).values(document=bindparam("p_document"))
_RECORD = TypeAdapter(ModelResultRecord)


class SqlModelResults:
    """Results of model calls in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: ModelCallKey) -> ModelResultRecord | None:
        """See ``ModelResults.get``."""
        row = await self._database.read(lambda connection: connection.execute(_ROW, _where(key)).one_or_none())
        return _RECORD.validate_json(row.document) if row is not None and row.document is not None else None

    async def begin(self, key: ModelCallKey) -> int:
        """See ``ModelResults.begin``."""
        return await self._database.write(lambda connection: _begin(connection, key))

    async def put(self, key: ModelCallKey, result: ModelResultRecord) -> ModelResultRecord:
        """See ``ModelResults.put``."""
        return await self._database.write(lambda connection: _put(connection, key, result))


def _begin(connection: Connection, key: ModelCallKey) -> int:
    row = connection.execute(_ROW.with_for_update(), _where(key)).one_or_none()
    if row is None:
        # A twin that was first refuses this insert, and the second try finds its row.
        connection.execute(insert(MODEL_RESULTS), _row(key) | {"requests": 1, "document": None})
        return 1
    number: int = row.requests + 1
    connection.execute(_COUNT, _where(key) | {"p_requests": number})
    return number


def _put(connection: Connection, key: ModelCallKey, result: ModelResultRecord) -> ModelResultRecord:
    row = connection.execute(_ROW.with_for_update(), _where(key)).one_or_none()
    if row is None:
        raise LivoaError("store.unavailable", "a model's result came without its request", status=503)
    if row.document is not None:
        return _RECORD.validate_json(row.document)
    document = _RECORD.dump_json(result).decode()
    connection.execute(_KEEP, _where(key) | {"p_document": document})
    return result


def _where(key: ModelCallKey) -> dict[str, Any]:
    return {
        "p_tenant": key.tenant_id,
        "p_run": key.run_id,
        "p_version": key.plan_version,
        "p_node": key.node,
        "p_prompt": key.prompt_sha256,
    }


def _row(key: ModelCallKey) -> dict[str, Any]:
    return {
        "tenant_id": key.tenant_id,
        "run_id": key.run_id,
        "plan_version": key.plan_version,
        "node": key.node,
        "prompt_sha256": key.prompt_sha256,
    }
