"""Results of model calls and the count of requests for each, one document per key in the partition of its run."""

from __future__ import annotations

from pydantic import TypeAdapter

from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.definitions import RUNS
from engine.adapters.cosmos.repository import Document, TenantRepository
from engine.adapters.cosmos.run_partition import id_of
from engine.domain.errors import LivoaError
from engine.ports.model_results import ModelCallKey, ModelResultRecord

_RECORD = TypeAdapter(ModelResultRecord)


class CosmosModelResults:
    """Results of model calls in a Cosmos DB database."""

    def __init__(self, connection: CosmosConnection) -> None:
        self._connection = connection

    async def get(self, key: ModelCallKey) -> ModelResultRecord | None:
        """See ``ModelResults.get``."""
        found = await self._of(key).read(key.run_id, _id(key))
        return _result(found) if found is not None else None

    async def begin(self, key: ModelCallKey) -> int:
        """See ``ModelResults.begin``. A count whose answer was lost is counted again: numbers are skipped, never repeated."""

        def count(found: Document | None) -> tuple[int, Document]:
            number = found["requests"] + 1 if found is not None else 1
            return number, {"kind": "model", "document": None} | (found or {}) | {"requests": number}

        return await self._of(key).update(key.run_id, _id(key), count)

    async def put(self, key: ModelCallKey, result: ModelResultRecord) -> ModelResultRecord:
        """See ``ModelResults.put``."""

        def keep(found: Document | None) -> tuple[ModelResultRecord, Document | None]:
            if found is None:
                raise LivoaError("store.unavailable", "a model's result came without its request", status=503)
            known = _result(found)
            if known is not None:
                return known, None
            return result, found | {"document": _RECORD.dump_json(result).decode()}

        return await self._of(key).update(key.run_id, _id(key), keep)

    def _of(self, key: ModelCallKey) -> TenantRepository:
        return TenantRepository(self._connection, RUNS, key.tenant_id)


def _id(key: ModelCallKey) -> str:
    return id_of("model", str(key.plan_version), key.node, key.prompt_sha256)


def _result(found: Document) -> ModelResultRecord | None:
    return _RECORD.validate_json(found["document"]) if found["document"] is not None else None
