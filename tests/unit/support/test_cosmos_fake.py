"""The model of Cosmos DB by itself: what it answers, and that it refuses what it does not model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cosmos_fake import Account, cut_within
from tests.support.cosmos_fake.model import MAX_BATCH_OPERATIONS, AnswerError, Container
from tests.support.cosmos_fake.sql import QueryError, parse

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "n": 1, "tags": ["x", "y"]},
    {"id": "b", "n": 3, "tags": ["y"], "deep": {"er": 1}},
    {"id": "c", "n": 2},
    {"id": "d", "n": "2", "gone": None},
]


def asked(text: str, **parameters: Any) -> list[Any]:
    return parse(text, {f"@{name}": value for name, value in parameters.items()}).run(DOCUMENTS)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("c.n > 1", "bc"),
        ("c.n >= @n AND NOT c.n = 3", "c"),
        ("c.n = '2' OR c.id = 'a'", "ad"),
        ("c.n != 1", "bc"),
        ("c.id IN ('a', 'c', 'z')", "ac"),
        ("ARRAY_CONTAINS(c.tags, 'y')", "ab"),
        ("ARRAY_CONTAINS(@ids, c.id)", "bd"),
        ("NOT ARRAY_CONTAINS(c.tags, 'x')", "b"),
        ("IS_DEFINED(c.gone)", "d"),
        ("c.gone = null", "d"),
        ("c.deep.er = 1", "b"),
        ("(c.n = 1 OR c.n = 2) AND c.id != 'a'", "c"),
        ("c.absent = c.absent", ""),
    ],
)
def test_conditions_select_as_the_service_does(where: str, expected: str) -> None:
    found = asked(f"SELECT VALUE c.id FROM c WHERE {where}", n=2, ids=["b", "d"])
    assert "".join(found) == expected


def test_order_top_projection_and_join() -> None:
    assert asked("SELECT VALUE c.id FROM c ORDER BY c.n DESC") == ["d", "b", "c", "a"]
    assert asked("SELECT TOP 2 c.id, c.absent FROM c ORDER BY c.n") == [{"id": "a"}, {"id": "c"}]
    assert asked("SELECT VALUE t FROM c JOIN t IN c.tags WHERE t = 'y'") == ["y", "y"]
    assert asked("SELECT * FROM c WHERE c.id = 'c'") == [{"id": "c", "n": 2}]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT COUNT(1) FROM c",
        "SELECT * FROM c GROUP BY c.n",
        "SELECT * FROM c WHERE c.n LIKE 'a%'",
        "SELECT * FROM c OFFSET 1 LIMIT 1",
        "SELECT * FROM c WHERE c.n = @unknown",
        "SELECT * FROM c WHERE UPPER(c.id) = 'A'",
        "SELECT DISTINCT c.n FROM c",
        "DELETE FROM c",
    ],
)
def test_what_is_not_modelled_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        asked(text)


class Clock:
    now = 1_000.0


def opened(ttl: int | None = None, **more: Any) -> tuple[Account, Container, Clock]:
    clock = Clock()
    account = Account(lambda: clock.now, **more)
    account.databases["db"] = {}
    key = {"paths": ["/tenant", "/run"], "kind": "MultiHash", "version": 2}
    properties = {"id": "c", "partitionKey": key} | ({} if ttl is None else {"defaultTtl": ttl})
    account.create_container("db", properties)
    return account, account.container("db", "c"), clock


KEY = ("t", "r")


def document(document_id: str = "a", **fields: Any) -> dict[str, Any]:
    return {"id": document_id, "tenant": "t", "run": "r"} | fields


def status_of(work: Any) -> int:
    with pytest.raises(AnswerError) as caught:
        work()
    return caught.value.status


def test_statuses_of_single_documents() -> None:
    account, container, _ = opened()
    _, first = account.create(container, KEY, document())
    assert status_of(lambda: account.create(container, KEY, document())) == 409
    assert status_of(lambda: account.read(container, KEY, "z")) == 404
    second = account.replace(container, KEY, "a", document(n=2), first["_etag"])
    assert status_of(lambda: account.replace(container, KEY, "a", document(n=3), first["_etag"])) == 412
    assert status_of(lambda: account.delete(container, KEY, "a", first["_etag"])) == 412
    account.delete(container, KEY, "a", second["_etag"])
    assert status_of(lambda: account.read(container, KEY, "a")) == 404


@pytest.mark.parametrize("bad", ["a/b", "a?b", "a#b", "a\\b", "", "x" * 1_024])
def test_ids_that_the_service_refuses_are_refused(bad: str) -> None:
    account, container, _ = opened()
    assert status_of(lambda: account.create(container, KEY, document(bad))) == 400


def test_a_document_belongs_to_the_partition_it_names() -> None:
    account, container, _ = opened()
    assert status_of(lambda: account.create(container, ("t", "other"), document())) == 400
    assert status_of(lambda: account.create(container, ("t",), document())) == 400
    account.create(container, KEY, document())
    assert status_of(lambda: account.read(container, ("t", "other"), "a")) == 404


def test_a_failing_batch_leaves_nothing_behind() -> None:
    account, container, _ = opened()
    account.create(container, KEY, document())
    operations = [
        {"operationType": "Create", "resourceBody": document("b")},
        {"operationType": "Replace", "id": "a", "ifMatch": '"old"', "resourceBody": document(n=2)},
        {"operationType": "Create", "resourceBody": document("c")},
    ]
    status, results = account.batch(container, KEY, operations)
    assert (status, [result["statusCode"] for result in results]) == (207, [424, 412, 424])
    assert [place[1] for place in container.documents] == ["a"]
    many = [{"operationType": "Create", "resourceBody": document(f"{n}")} for n in range(MAX_BATCH_OPERATIONS + 1)]
    assert status_of(lambda: account.batch(container, KEY, many)) == 400
    assert status_of(lambda: account.batch(container, KEY, [{"operationType": "Patch", "id": "a"}])) == 501


def test_documents_expire_only_where_the_container_lets_them() -> None:
    account, container, clock = opened(ttl=-1)
    account.create(container, KEY, document("kept"))
    account.create(container, KEY, document("brief", ttl=10))
    clock.now += 10
    assert status_of(lambda: account.read(container, KEY, "brief")) == 404
    assert account.query(container, {"query": "SELECT VALUE c.id FROM c"}, KEY, None) == ["kept"]
    account.create(container, KEY, document("brief"))
    without, other, later = opened()
    without.create(other, KEY, document("brief", ttl=10))
    later.now += 10
    assert without.read(other, KEY, "brief")["ttl"] == 10


def test_an_order_over_two_paths_needs_its_index() -> None:
    account, container, _ = opened()
    body = {"query": "SELECT * FROM c ORDER BY c.a, c.b"}
    assert status_of(lambda: account.query(container, body, KEY, None)) == 400
    index = [[{"path": "/a", "order": "ascending"}, {"path": "/b", "order": "ascending"}]]
    container.properties["indexingPolicy"] = {"compositeIndexes": index}
    assert account.query(container, body, KEY, None) == []
    assert account.query(container, {"query": "SELECT * FROM c ORDER BY c.a DESC, c.b DESC"}, KEY, None) == []
    mixed = {"query": "SELECT * FROM c ORDER BY c.a DESC, c.b"}
    assert status_of(lambda: account.query(container, mixed, KEY, None)) == 400


def test_physical_partitions_hold_every_document_once() -> None:
    account, container, _ = opened(cuts=[cut_within(("/tenant", "/run"), "t"), "20"])
    for number in range(20):
        key = ("t", f"r{number}")
        account.create(container, key, {"id": "a", "tenant": "t", "run": key[1]})
    query = {"query": "SELECT VALUE c.run FROM c"}
    parts = [account.query(container, query, None, span) for span in container.bounds()]
    assert sorted(run for part in parts for run in part) == sorted(f"r{number}" for number in range(20))
    assert len([part for part in parts if part]) == 2
