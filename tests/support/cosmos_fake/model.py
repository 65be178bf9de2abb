"""Databases, containers and documents: what each operation means, without HTTP."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from azure.cosmos.partition_key import PartitionKey

from tests.support.cosmos_fake.sql import QueryError, parse

MAX_DOCUMENT_BYTES = 2 * 1024 * 1024
MAX_BATCH_OPERATIONS = 100
MAX_DOCUMENTS = 100_000
_BAD_ID = set("/\\?#")
_SYSTEM = ("_rid", "_self", "_etag", "_ts", "_attachments")
Key = tuple[Any, ...]
Document = dict[str, Any]


class AnswerError(Exception):
    """The service answers with an error."""

    def __init__(self, status: int, code: str, message: str = "", **headers: str) -> None:
        super().__init__(message or code)
        self.status, self.code, self.message = status, code, message or code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Container:
    """One container: documents by full partition key and id. ``cuts`` are the hashes between its physical partitions."""

    properties: Document
    cuts: tuple[str, ...] = ()
    documents: dict[tuple[Key, str], Document] = field(default_factory=dict)
    expires: dict[tuple[Key, str], float] = field(default_factory=dict)
    unique: dict[tuple[Key, tuple[str, ...], str], str] = field(default_factory=dict)
    """Which document has which values of a unique key. May be stale: the document itself tells."""

    @property
    def paths(self) -> list[str]:
        return [path.strip("/") for path in self.properties["partitionKey"]["paths"]]

    @property
    def composites(self) -> list[list[tuple[str, str]]]:
        declared = self.properties.get("indexingPolicy", {}).get("compositeIndexes", [])
        given = [[(part["path"], part.get("order", "ascending")) for part in index] for index in declared]
        # An index over several paths is read in both directions, but only as a whole.
        turned = {"ascending": "descending", "descending": "ascending"}
        return given + [[(path, turned[order]) for path, order in index] for index in given]

    @property
    def unique_keys(self) -> list[tuple[str, ...]]:
        policy = self.properties.get("uniqueKeyPolicy") or {}
        return [tuple(path.strip("/") for path in key["paths"]) for key in policy.get("uniqueKeys", ())]

    def key_of(self, document: Mapping[str, Any]) -> Key:
        return tuple(document.get(path) for path in self.paths)

    def bounds(self) -> list[tuple[str, str]]:
        """The hash ranges of the physical partitions: lower bound included, upper bound not."""
        return list(itertools.pairwise(("", *self.cuts, "FF")))

    def epk_of(self, key: Key) -> str:
        kind = self.properties["partitionKey"]
        definition = PartitionKey(path=kind["paths"], kind=kind.get("kind", "Hash"), version=kind.get("version", 2))
        epk = definition._get_epk_range_for_partition_key(list(key) if len(kind["paths"]) > 1 else key[0])
        return str(epk.min)


def cut_within(paths: Sequence[str], prefix: str, at: str = "20") -> str:
    """A hash between documents of the same first key value, so that they lie on two physical partitions."""
    definition = PartitionKey(path=list(paths), kind="MultiHash", version=2)
    return str(definition._get_epk_range_for_prefix_partition_key([prefix]).min) + at


class Account:
    """Everything in one account. ``now`` is the time in seconds that time-to-live is judged by, ``cuts`` where physical
    partitions end (hashes as ``cut_within`` gives them), ``page`` the most documents of one page of an answer."""

    consistency = "BoundedStaleness"
    """What its clients may ask for at most. Reads are strong whatever it says."""

    def __init__(self, now: Callable[[], float], *, cuts: Sequence[str] = (), page: int = 100) -> None:
        self._now, self._cuts = now, tuple(sorted(cuts))
        self.page = page
        self.lock = threading.RLock()
        self.databases: dict[str, dict[str, Container]] = {}
        self.lsn = 0

    def create_container(self, database: str, properties: Document) -> Document:
        with self.lock:
            containers = self.databases.get(database)
            if containers is None:
                raise AnswerError(404, "NotFound")
            if properties["id"] in containers:
                raise AnswerError(409, "Conflict")
            name = properties["id"]
            stored = dict(properties) | {"_rid": f"rid-{database}-{name}", "_self": f"dbs/{database}/colls/{name}"}
            containers[name] = Container(stored, self._cuts)
            return stored

    def container(self, database: str, name: str) -> Container:
        try:
            return self.databases[database][name]
        except KeyError:
            raise AnswerError(404, "NotFound", "the owner resource does not exist", x_ms_substatus="1003") from None

    def create(
        self, container: Container, key: Key, document: Document, *, upsert: bool = False
    ) -> tuple[int, Document]:
        self._check(container, key, document)
        place = (key, document["id"])
        known = self._live(container, place)
        if known is not None and not upsert:
            raise AnswerError(409, "Conflict", "Entity with the specified id already exists")
        if len(container.documents) >= MAX_DOCUMENTS:
            raise AnswerError(507, "Full", "the model is full")
        return (200 if known else 201), self._put(container, place, document)

    def read(self, container: Container, key: Key, document_id: str) -> Document:
        found = self._live(container, (key, document_id))
        if found is None:
            raise AnswerError(404, "NotFound")
        return found

    def replace(
        self, container: Container, key: Key, document_id: str, document: Document, if_match: str | None
    ) -> Document:
        self._check(container, key, document)
        self._matches(self.read(container, key, document_id), if_match)
        if document["id"] != document_id:
            raise AnswerError(400, "BadRequest", "an id cannot be changed")
        return self._put(container, (key, document_id), document)

    def delete(self, container: Container, key: Key, document_id: str, if_match: str | None) -> None:
        self._matches(self.read(container, key, document_id), if_match)
        self.lsn += 1
        del container.documents[key, document_id]
        container.expires.pop((key, document_id), None)

    def batch(self, container: Container, key: Key, operations: Sequence[Document]) -> tuple[int, list[Document]]:
        """All or nothing. A failing operation makes it 207: its own status for that one, 424 for all others."""
        if not 0 < len(operations) <= MAX_BATCH_OPERATIONS:
            raise AnswerError(400, "BadRequest", "a batch has 1 to 100 operations")
        if len(json.dumps(operations)) > MAX_DOCUMENT_BYTES:
            raise AnswerError(413, "RequestEntityTooLarge")
        before = dict(container.documents), dict(container.expires)
        results: list[Document] = []
        for index, operation in enumerate(operations):
            try:
                status, body = self._operation(container, key, operation)
            except AnswerError as failure:
                container.documents, container.expires = before
                if failure.status == 501:
                    raise
                failed = [{"statusCode": 424, "requestCharge": 0.0} for _ in operations]
                failed[index] = {"statusCode": failure.status, "requestCharge": 1.0}
                return 207, failed
            results.append({"statusCode": status, "requestCharge": 1.0, "eTag": body["_etag"], "resourceBody": body})
        return 200, results

    def query(self, container: Container, body: Document, key: Key | None, span: tuple[str, str] | None) -> list[Any]:
        """The answers of one full partition key, or of the hashes from ``span[0]`` up to ``span[1]``."""
        parameters = {parameter["name"]: parameter["value"] for parameter in body.get("parameters", [])}
        try:
            query = parse(body["query"], parameters)
        except QueryError as err:
            raise AnswerError(400, "BadRequest", f"the model does not answer this query: {err}") from err
        if len(query.order) > 1 and query.order_paths not in container.composites:
            raise AnswerError(400, "BadRequest", f"no composite index over {query.order_paths}")
        found = []
        for place, document in list(container.documents.items()):
            inside = (
                place[0] == key if key is not None else span is not None and self._within(container, place[0], span)
            )
            if inside and self._live(container, place) is not None:
                found.append(document)
        return query.run(found)

    @staticmethod
    def _within(container: Container, key: Key, span: tuple[str, str]) -> bool:
        return span[0] <= container.epk_of(key) < span[1]

    def _operation(self, container: Container, key: Key, operation: Document) -> tuple[int, Document]:
        body, match = operation.get("resourceBody"), operation.get("ifMatch")
        match operation["operationType"]:
            case "Create":
                return self.create(container, key, dict(body or {}))
            case "Upsert":
                return self.create(container, key, dict(body or {}), upsert=True)
            case "Replace":
                return 200, self.replace(container, key, operation["id"], dict(body or {}), match)
            case "Read":
                return 200, self.read(container, key, operation["id"])
            case other:
                raise AnswerError(501, "NotModelled", f"{other} in a batch")

    def _check(self, container: Container, key: Key, document: Document) -> None:
        document_id = document.get("id")
        if not isinstance(document_id, str) or not 0 < len(document_id) <= 1023 or set(document_id) & _BAD_ID:
            raise AnswerError(400, "BadRequest", "id")
        if len(key) != len(container.paths) or container.key_of(document) != key or None in key:
            raise AnswerError(400, "BadRequest", "the partition key of the request is not the document's")
        if len(json.dumps(document)) > MAX_DOCUMENT_BYTES:
            raise AnswerError(413, "RequestEntityTooLarge")

    def _live(self, container: Container, place: tuple[Key, str]) -> Document | None:
        if place in container.expires and self._now() >= container.expires[place]:
            container.documents.pop(place, None)
            del container.expires[place]
        return container.documents.get(place)

    def _put(self, container: Container, place: tuple[Key, str], document: Document) -> Document:
        self._refuse_twins(container, place, document)
        self.lsn += 1
        stored = {name: value for name, value in document.items() if name not in _SYSTEM}
        stored = json.loads(json.dumps(stored)) | {"_etag": f'"{self.lsn:08x}"', "_ts": int(self._now())}
        container.documents[place] = stored
        container.expires.pop(place, None)
        default = container.properties.get("defaultTtl")
        if default is not None and (ttl := stored.get("ttl", default)) != -1:
            container.expires[place] = self._now() + ttl
        return stored

    def _refuse_twins(self, container: Container, place: tuple[Key, str], document: Document) -> None:
        """No two documents of a logical partition have the same values of a unique key; a missing value is one value, null."""
        for paths in container.unique_keys:
            values = json.dumps([document.get(path) for path in paths])
            other = container.unique.get((place[0], paths, values))
            found = self._live(container, (place[0], other)) if other not in (None, place[1]) else None
            if found is not None and json.dumps([found.get(path) for path in paths]) == values:
                raise AnswerError(409, "Conflict", "Unique index constraint violation")
            container.unique[place[0], paths, values] = place[1]

    @staticmethod
    def _matches(found: Document, if_match: str | None) -> None:
        if if_match is not None and if_match not in ("*", found["_etag"]):
            raise AnswerError(412, "PreconditionFailed")
