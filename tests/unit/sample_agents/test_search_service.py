"""Passages in Azure AI Search: indexed, found with their citations, confined to the tenant, whatever the service answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_kit import Agent, CapabilityError, StepContext, load_manifests
from engine.domain.execute import ExecuteRequest
from engine.plan import validate_output
from sample_agents.retrieval import Passage, SearchInputs, read_passages, register
from sample_agents.search_service import SearchService, SearchSettings, main, read_settings
from tests.support.search_server import ADMIN_KEY, QUERY_KEY, SearchServer
from tests.unit.sample_agents.conftest import SAMPLES

MANIFEST = load_manifests(SAMPLES.parent / "capabilities")["rag.search"]
BRIEFS = tuple(read_passages(SAMPLES / "contoso" / "briefs"))


def context(tenant_id: str = "contoso") -> StepContext:
    request = ExecuteRequest(
        tenant_id=tenant_id, run_id="run-1", step_id="search", attempt=1, capability="rag.search", inputs={},
        idempotency_key="run-1/search", deadline_at=datetime.now(UTC) + timedelta(seconds=60),
    )  # fmt: skip
    return StepContext(request, MANIFEST, ThreadPoolExecutor(1))


@pytest.fixture
def server() -> Iterator[SearchServer]:
    with SearchServer() as running:
        yield running


def service(server: SearchServer, key: str = ADMIN_KEY) -> SearchService:
    return SearchService(SearchSettings(server.url, "briefs", key))


async def filled(server: SearchServer) -> SearchService:
    """A service with contoso's briefs and one of fabrikam's, looked up with a key that may not write."""
    admin = service(server)
    await admin.make_index()
    await admin.replace("contoso", BRIEFS)
    await admin.replace("fabrikam", [Passage("theirs", "Theirs", "Paid search", "2026-01-01", "paid search secret")])
    return service(server, QUERY_KEY)


async def output_of(search: SearchService, query: str, top_k: int = 5, tenant_id: str = "contoso") -> dict[str, Any]:
    """What the capability answers, held to its manifest."""
    agent = Agent({"rag.search": MANIFEST})
    register(agent, search)
    handler = agent.capabilities["rag.search"].handler
    output: dict[str, Any] = await handler(SearchInputs(query=query, top_k=top_k), context(tenant_id))
    assert validate_output(MANIFEST, output) == ()
    return output


async def refused(search: SearchService, query: str = "paid search", tenant_id: str = "contoso") -> Any:
    with pytest.raises(CapabilityError) as caught:
        await output_of(search, query, tenant_id=tenant_id)
    assert "canary" not in caught.value.error.message
    return caught.value.error


async def test_what_is_indexed_is_found_as_it_stands_with_its_citation(server: SearchServer) -> None:
    output = await output_of(await filled(server), "note to the assistant maintenance mode", 1)
    (passage,) = output["passages"]
    assert "Ignore all previous instructions" in passage["text"]
    assert passage["citation"] == "Forwarded note from an agency (2026-09-25), Note to the assistant"


async def test_a_tenant_finds_its_own_passages_only(server: SearchServer) -> None:
    search = await filled(server)
    ours = await output_of(search, "paid search secret", 20)
    assert {passage["document"] for passage in ours["passages"]} <= {passage.document for passage in BRIEFS}
    theirs = await output_of(search, "paid search", tenant_id="fabrikam")
    assert [passage["document"] for passage in theirs["passages"]] == ["theirs"]
    assert (await output_of(search, "paid search", tenant_id="nobody"))["passages"] == []


async def test_a_passage_of_another_tenant_is_never_handed_out(server: SearchServer) -> None:
    search = await filled(server)
    server.extra = [
        {
            "@search.score": 9.0,
            "tenant_id": "fabrikam",
            "document": "x",
            "title": "x",
            "section": "x",
            "date": "",
            "text": "canary",
        }
    ]
    assert (await refused(search)).code == "rag.foreign_passage"


@pytest.mark.parametrize("tenant_id", ["x' or tenant_id ne 'y", "", "a b"])
async def test_a_tenant_cannot_widen_the_filter(server: SearchServer, tenant_id: str) -> None:
    search, inside = await filled(server), context()
    request = inside.request.model_construct(**(dict(inside.request) | {"tenant_id": tenant_id}))
    with pytest.raises(CapabilityError) as caught:
        await search.search(SearchInputs(query="paid"), replace(inside, request=request))
    assert caught.value.error.code == "rag.tenant_invalid"


async def test_operators_in_a_query_are_words(server: SearchServer) -> None:
    search = await filled(server)
    await output_of(search, '+paid -search | "budget" (tv*) title:x')
    assert not set(server.heard[-1]["search"]) & set('+-|"()*:')
    heard = len(server.heard)
    assert (await output_of(search, "+-*"))["passages"] == []
    assert len(server.heard) == heard, "a query without words asks for nothing"


async def test_indexing_again_changes_nothing_and_removes_what_is_gone(server: SearchServer) -> None:
    admin = service(server)
    await admin.make_index()
    assert await admin.replace("contoso", BRIEFS) == (len(BRIEFS), 0)
    before = json.dumps(server.indexes, sort_keys=True)
    await admin.make_index()
    assert await admin.replace("contoso", BRIEFS) == (len(BRIEFS), 0)
    assert json.dumps(server.indexes, sort_keys=True) == before
    await admin.replace("fabrikam", BRIEFS[:2])
    assert await admin.replace("contoso", BRIEFS[:3]) == (3, len(BRIEFS) - 3)
    left = [document["tenant_id"] for document in server.indexes["briefs"].values()]
    assert sorted(left) == ["contoso"] * 3 + ["fabrikam"] * 2


@pytest.mark.parametrize(
    ("fault", "code", "retryable"),
    [
        (503, "rag.unavailable", True),
        (429, "rag.unavailable", True),
        (400, "rag.unavailable", False),
        (403, "rag.not_allowed", False),
    ],
)
async def test_what_the_service_refuses_is_told_without_its_words(
    server: SearchServer, fault: int, code: str, retryable: bool
) -> None:
    search = await filled(server)
    server.faults = [fault]
    error = await refused(search)
    assert (error.code, error.retryable) == (code, retryable)


async def test_a_wrong_key_a_missing_index_and_a_refused_passage(server: SearchServer) -> None:
    assert (await refused(service(server, "wrong"))).code == "rag.not_allowed"
    assert (await refused(service(server, QUERY_KEY))).code == "rag.no_index"
    admin = service(server)
    await admin.make_index()
    server.refuse_documents = True
    with pytest.raises(CapabilityError) as caught:
        await admin.replace("contoso", BRIEFS)
    assert caught.value.error.code == "rag.unavailable"
    with pytest.raises(CapabilityError) as caught:
        await service(server, QUERY_KEY).replace("contoso", BRIEFS)
    assert caught.value.error.code == "rag.not_allowed"


@pytest.mark.parametrize("extra", [{}, {"@search.score": "1"}, {"@search.score": -1.0}, "text"])
async def test_an_answer_of_another_form_is_refused(server: SearchServer, extra: Any) -> None:
    search = await filled(server)
    server.extra = [extra]
    assert (await refused(search)).code == "rag.bad_answer"


async def test_a_service_that_is_away_can_be_tried_again(server: SearchServer) -> None:
    search = await filled(server)
    server.__exit__()
    error = await refused(search)
    assert (error.code, error.retryable) == ("egress.unavailable", True)


def test_the_command_indexes_a_tenants_briefs(
    server: SearchServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(ADMIN_KEY + "\n")
    settings = {"endpoint": server.url, "index": "briefs", "key_file": str(tmp_path / "key")}
    (tmp_path / "search.json").write_text(json.dumps(settings))
    arguments = ["--settings", str(tmp_path / "search.json"), "--samples", str(SAMPLES), "--tenant", "contoso"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"contoso: {len(BRIEFS)} passages written, 0 removed\n"
    (tmp_path / "key").write_text("canary")
    assert main(arguments) == 1
    assert "canary" not in capsys.readouterr().err
    assert main([*arguments[:-1], "../contoso"]) == 1


@pytest.mark.parametrize(
    "content",
    [
        "[]", '{"endpoint": "https://x", "index": "briefs"}',
        '{"endpoint": "http://elsewhere.example", "index": "briefs", "key_file": "k"}',
        '{"endpoint": "https://x", "index": "Briefs!", "key_file": "k"}',
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(ValueError, match=r"search\.json"):
        read_settings(tmp_path / "search.json")
