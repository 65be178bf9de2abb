"""Routing over the shipped catalog: what a tenant asks is found, what is vague gets choices, the rest is turned away."""

from __future__ import annotations

import numpy as np
import pytest

from planner_graph.routing import CatalogRouter, CatalogRouters, EmbeddingSource, clear_playbook
from planner_graph.routing.minilm import WIDTH, EmbeddingUnavailableError, MiniLm

from .test_degraded_planner import TENANTS, _Catalog

CATALOG = _Catalog()
ROUTERS = CatalogRouters()


def route(intent, tenant="contoso"):
    return ROUTERS.of(CATALOG, TENANTS[tenant]).route(intent)


@pytest.mark.parametrize(
    ("intent", "playbook", "capability"),
    [
        ("Why did sales fall in Q3?", "explain_change", "marketing.compare_periods"),
        ("why were sales lower in november", "explain_change", "marketing.compare_periods"),
        ("How did clicks develop against the quarter before?", "explain_change", "marketing.compare_periods"),
        ("sales in June", "performance_report", "marketing.query_performance"),
        ("spend per week", "performance_report", "marketing.query_performance"),
        ("Which channels brought the most sales in Q3 2026?", "performance_report", "marketing.query_performance"),
        ("dollar to franc", "exchange_rate", "rates.lookup"),
        ("what return does email bring", "channel_returns", "mmm.fit"),
        ("how should we divide 2 million between the channels", "plan_budget", "mmm.allocate_budget"),
        ("which notes mention the autumn campaign", "find_notes", "rag.search"),
        ("Why did TV ROI fall and where should the budget move?", "return_and_budget", "mmm.allocate_budget"),
    ],
)
def test_a_clear_request_finds_its_playbook_and_the_capability_it_needs(intent, playbook, capability):
    found = route(intent)
    assert found.in_scope
    assert clear_playbook(found) == playbook
    assert capability in [each.name for each in found.capabilities]
    assert found.router == "lexical"
    assert found.fallbacks == ()


@pytest.mark.parametrize(
    "intent",
    [
        "help me with marketing",
        "something about our channels",
        "paid search",
        "budget",
        "tell me about our advertising",
    ],
)
def test_a_vague_request_is_in_scope_but_no_playbook_is_guessed(intent):
    found = route(intent)
    assert found.in_scope
    assert clear_playbook(found) is None
    assert found.capabilities
    assert found.domain == found.capabilities[0].name.partition(".")[0]


def test_a_vague_request_is_less_sure_than_a_clear_one():
    assert (
        route("help me with marketing").confidence < 0.3 < 0.8 < route("What changed last quarter in sales?").confidence
    )


@pytest.mark.parametrize(
    "intent",
    [
        "tell me a joke",
        "book me a flight to Paris",
        "what is the weather tomorrow",
        "what's on TV tonight",
        "reset my password",
        "delete all customer records",
        "how do I change a tyre",
        "find cheap flights to Rome in June",
        "give me a pay rise",
        "play the next song",
        "1234567",
        "¿",
        "   ",
    ],
)
def test_what_is_not_the_tenants_business_is_out_of_scope_with_what_could_be_asked(intent):
    found = route(intent)
    assert not found.in_scope
    assert found.playbooks == ()
    assert [each.name for each in found.capabilities] == sorted(TENANTS["contoso"].enabled_capabilities)
    assert clear_playbook(found) is None


def test_a_tenant_is_routed_only_to_what_it_has_enabled():
    for intent in ("100 pounds in euro", "split 800k over channels", "What changed last quarter in sales?"):
        found = route(intent, "fabrikam")
        assert {each.name for each in found.capabilities} <= set(TENANTS["fabrikam"].enabled_capabilities)
        assert "exchange_rate" not in [each.name for each in found.playbooks]


def test_a_tenant_without_anything_enabled_can_ask_for_nothing():
    nobody = TENANTS["contoso"].model_copy(update={"enabled_capabilities": ()})
    found = CatalogRouter(CATALOG, nobody).route("What changed last quarter in sales?")
    assert not found.in_scope
    assert (found.capabilities, found.playbooks, found.confidence) == ((), (), 0.0)


def test_capabilities_without_playbooks_are_still_routed():
    confined = TENANTS["contoso"].model_copy(update={"enabled_playbooks": ()})
    found = CatalogRouter(CATALOG, confined).route("what is the exchange rate from pounds to euros")
    assert found.in_scope
    assert found.capabilities[0].name == "rates.lookup"
    assert found.playbooks == ()


def test_routing_is_the_same_every_time_and_for_every_router():
    intents = ["budget", "sales in June", "tell me a joke"]
    first, second = (CatalogRouter(CATALOG, TENANTS["contoso"]) for _ in range(2))
    assert [first.route(each) for each in intents] == [second.route(each) for each in intents]


def test_routers_are_kept_by_catalog_version_and_what_is_enabled():
    routers = CatalogRouters()
    contoso, fabrikam = TENANTS["contoso"], TENANTS["fabrikam"]
    first = routers.of(CATALOG, contoso)
    same_set = contoso.model_copy(update={"tenant_id": "other"})
    assert routers.of(CATALOG, same_set) is first
    assert routers.of(CATALOG, fabrikam) is not first
    fewer = contoso.model_copy(update={"enabled_playbooks": ("explain_change",)})
    assert routers.of(CATALOG, fewer) is not first
    newer = _Catalog()
    newer.version = "next"
    assert routers.of(newer, contoso) is not first
    assert routers.of(CATALOG, contoso) is first


class _Encoder:
    calls: list[int]

    def __init__(self):
        self.calls = []

    def embed(self, texts):
        self.calls.append(len(texts))
        rows = np.zeros((len(texts), WIDTH), dtype=np.float32)
        for at, text in enumerate(texts):
            rows[at, len(text) % WIDTH] = 1
        return rows


def _absent():
    raise EmbeddingUnavailableError("no tokenizers")


def test_an_embedding_model_that_is_not_installed_is_said_and_the_words_decide():
    source = EmbeddingSource(load=_absent)
    found = CatalogRouter(CATALOG, TENANTS["contoso"], embedding=source).route("sales in June")
    assert found.router == "lexical"
    assert [(hop.router, hop.reason) for hop in found.fallbacks] == [("embedding", "embedding.not_installed")]
    assert clear_playbook(found) == "performance_report"
    assert source.reason == "no tokenizers"


def test_with_the_model_the_route_says_so_and_examples_are_embedded_once_per_machine(tmp_path):
    first, second = _Encoder(), _Encoder()
    for encoder in (first, second):
        source = EmbeddingSource(tmp_path, load=lambda encoder=encoder: encoder)
        found = CatalogRouter(CATALOG, TENANTS["contoso"], embedding=source).route("sales in June")
        assert found.router == "embedding"
    assert max(first.calls) > 100
    assert max(second.calls) == 1
    kept = list((tmp_path / "embeddings").iterdir())
    assert len(kept) == 1
    kept[0].write_bytes(b"broken")
    third = _Encoder()
    source = EmbeddingSource(tmp_path, load=lambda: third)
    assert CatalogRouter(CATALOG, TENANTS["contoso"], embedding=source).route("sales in June") == found
    assert max(third.calls) > 100


def test_intents_are_never_kept_on_disk(tmp_path):
    router = CatalogRouter(CATALOG, TENANTS["contoso"], embedding=EmbeddingSource(tmp_path, load=_Encoder))
    router.route("sales in June")
    before = sorted((tmp_path / "embeddings").iterdir())
    router.route("my very own secret question about sales")
    assert sorted((tmp_path / "embeddings").iterdir()) == before


def test_the_real_model_knows_what_means_the_same():
    try:
        model = MiniLm.load()
    except EmbeddingUnavailableError as error:
        pytest.skip(f"{error} (requirements-embedding.txt)")
    rows = model.embed(["How is the weather today?", "Will it rain?", "Pay the invoice", "", "\ud800"])
    assert rows.shape == (5, WIDTH)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows[0] @ rows[1] > 0.4 > 0.2 > rows[0] @ rows[2]
    assert np.allclose(model.embed(["Will it rain?"])[0], rows[1], atol=1e-5)
