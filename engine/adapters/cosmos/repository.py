"""The one way to documents of a tenant: a repository that cannot be called without one.

The service grants access to whole containers, not to partitions of them, so the confinement is made here, twice: every request
carries the tenant as the first part of its partition key, and every document that comes back must name that tenant and, where one
was asked for, that scope. A document that does not is never handed out: ``LivoaError("store.foreign_document")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from engine.adapters.cosmos.connection import AbsentError, CosmosConnection, ResponseHook
from engine.adapters.cosmos.definitions import DOCUMENT_VERSION, LATER_LAYOUTS, SCHEMA, TENANT, ContainerDefinition
from engine.domain.errors import LivoaError

PAGE = 1_000
"""Most documents of one page of an answer; the service may send fewer."""
MAX_BATCH = 100
"""Most documents of one transaction; the service's limit."""
Document: TypeAlias = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Create:
    """A document that must not be there yet."""

    document: Document


@dataclass(frozen=True, slots=True)
class Put:
    """A document that may be there."""

    document: Document


@dataclass(frozen=True, slots=True)
class Replace:
    """A document that must still have this ``etag``."""

    document: Document
    etag: str


Operation: TypeAlias = Create | Put | Replace


@dataclass(frozen=True, slots=True)
class Find:
    """A query: conditions over ``c`` with named ``parameters``, by which fields to order (all the same way), how many at most."""

    where: str
    parameters: Mapping[str, Any]
    limit: int
    order: tuple[str, ...] = ()
    descending: bool = False
    fields: tuple[str, ...] = ()
    """Only these fields, and the key. Empty: everything."""


class TenantRepository:
    """Documents of one tenant in one container. ``scope`` is the second part of the partition key."""

    def __init__(self, connection: CosmosConnection, definition: ContainerDefinition, tenant_id: str) -> None:
        if not tenant_id:
            raise ValueError("a repository belongs to a tenant")
        self._connection, self._definition, self._tenant_id = connection, definition, tenant_id

    async def read(self, scope: str, document_id: str) -> Document | None:
        """One document, or None."""

        async def work(container: Any, charge: ResponseHook) -> Any:
            return await container.read_item(document_id, self._key(scope), response_hook=charge)

        try:
            return self._own(await self._connection.call(self._definition, "read", work), scope)
        except AbsentError:
            return None

    async def write(self, scope: str, operations: Sequence[Operation]) -> None:
        """All of it in one transaction, or nothing.

        Raises ``MovedError``, ``UnsureError`` and ``LivoaError``: ``store.too_large`` for more than ``MAX_BATCH`` documents.
        """
        if len(operations) > MAX_BATCH:
            raise LivoaError("store.too_large", f"more than {MAX_BATCH} documents in one transaction", status=413)
        batch = [self._item(operation, scope) for operation in operations]

        async def work(container: Any, charge: ResponseHook) -> None:
            await container.execute_item_batch(batch, self._key(scope), response_hook=charge)

        try:
            await self._connection.call(self._definition, "batch", work, writes=True)
        except AbsentError as err:
            # Nothing here deletes what is replaced with an etag, so its absence means another database, or a hand in it.
            raise LivoaError("store.unavailable", "a document to be replaced is not there", status=503) from err

    async def update(
        self, scope: str, document_id: str, work: Callable[[Document | None], tuple[T, Document | None]]
    ) -> T:
        """Change one document as ``work`` says, given what is there: its answer, and the new document or None for no change.

        ``work`` may be asked several times, also after a write of its own whose answer was lost.
        """

        async def attempt() -> T:
            found = await self.read(scope, document_id)
            answer, document = work(found)
            if document is not None:
                new = document | {"id": document_id}
                await self.write(scope, [Create(new) if found is None else Replace(new, found["_etag"])])
            return answer

        return await self._connection.settled(attempt)

    async def delete(self, scope: str, document_id: str) -> bool:
        """Remove a document. False when it was not there."""

        async def work(container: Any, charge: ResponseHook) -> None:
            await container.delete_item(document_id, self._key(scope), response_hook=charge)

        async def attempt() -> bool:
            try:
                await self._connection.call(self._definition, "delete", work, writes=True)
            except AbsentError:
                return False
            return True

        return await self._connection.settled(attempt)

    async def find(self, find: Find, scope: str | None = None) -> list[Document]:
        """Documents of one scope, or of the whole tenant, in the order asked for.

        A tenant may lie on several physical partitions. The service then answers for one after the other, each in order and each
        with up to ``limit``; they are brought into one order here.
        """
        key = [self._tenant_id] if scope is None else self._key(scope)
        text, parameters = query_of(find, self._definition)

        async def work(container: Any, charge: ResponseHook) -> list[Any]:
            pages = container.query_items(
                text,
                parameters=parameters,
                partition_key=key,
                max_item_count=min(find.limit, PAGE),
                response_hook=charge,
            )
            return [document async for document in pages]

        found = await self._connection.call(self._definition, "query", work)
        return in_order([self._own(document, scope) for document in found], find)

    def _key(self, scope: str) -> list[str]:
        if not scope:
            raise ValueError("a document lies in a scope")
        return [self._tenant_id, scope]

    def _item(self, operation: Operation, scope: str) -> tuple[Any, ...]:
        own = {name: value for name, value in operation.document.items() if not name.startswith("_")}
        document = own | {TENANT: self._tenant_id, self._definition.level: scope, SCHEMA: _layout_of(own)}
        match operation:
            case Create():
                return "create", (document,)
            case Put():
                return "upsert", (document,)
            case Replace(etag=etag):
                return "replace", (document["id"], document), {"if_match_etag": etag}

    def _own(self, document: Mapping[str, Any], scope: str | None) -> Document:
        found = document.get(TENANT), document.get(self._definition.level)
        if found[0] != self._tenant_id or (scope is not None and found[1] != scope):
            raise LivoaError(
                "store.foreign_document", "the database answered with something else's document", status=500
            )
        return readable(document)


def readable(document: Mapping[str, Any]) -> Document:
    """The document, when it has a layout that this application knows. Raises ``LivoaError("store.schema_newer")``."""
    version, known = document.get(SCHEMA, 1), _layout_of(document)
    if not isinstance(version, int) or not 1 <= version <= known:
        raise LivoaError(
            "store.schema_newer",
            f"a document has layout {version}, this version knows {known}; start one that is at least as new",
            status=500,
        )
    return dict(document)


def _layout_of(document: Mapping[str, Any]) -> int:
    return LATER_LAYOUTS.get(document.get("kind", ""), DOCUMENT_VERSION)


def query_of(find: Find, definition: ContainerDefinition) -> tuple[str, list[dict[str, Any]]]:
    """The text of a query and its parameters. Values travel as parameters only."""
    names = (TENANT, definition.level, SCHEMA, *find.fields)
    words = ["SELECT", f"TOP {find.limit}", ", ".join(f"c.{name}" for name in names) if find.fields else "*"]
    words += ["FROM c WHERE", find.where]
    if find.order:
        direction = " DESC" if find.descending else ""
        words += ["ORDER BY", ", ".join(f"c.{name}{direction}" for name in find.order)]
    return " ".join(words), [{"name": f"@{name}", "value": value} for name, value in find.parameters.items()]


def in_order(documents: list[Document], find: Find) -> list[Document]:
    """What several physical partitions answered, as one answer."""
    if find.order:
        documents.sort(key=lambda document: [document[name] for name in find.order], reverse=find.descending)
    return documents[: find.limit]
