"""The manifests of the sample domain: complete, consistent with each other, and usable for routing and planning."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine.adapters.files.catalog import FilesCatalog
from engine.adapters.files.tenant_directory import FilesTenantDirectory
from engine.domain.capability import Capability
from engine.domain.tenant import TenantConfig
from engine.plan import check_plan
from tests.support.shipped import CAPABILITIES

CATALOG = Path(__file__).resolve().parents[3] / "catalog"
LOADED = FilesCatalog(CATALOG)


class Today:
    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC)


def tenant(tenant_id: str) -> TenantConfig:
    found = asyncio.run(FilesTenantDirectory(CATALOG, Today()).get(tenant_id))
    assert found is not None
    return found


@pytest.fixture(params=CAPABILITIES)
def manifest(request: pytest.FixtureRequest) -> Capability:
    return LOADED.capabilities[request.param]


def objects_in(schema: Any, pointer: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every object schema inside a schema, with its place."""
    found = []
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            found.append((pointer, schema))
        for key, value in schema.items():
            found.extend(objects_in(value, f"{pointer}/{key}"))
    return found


def test_all_are_there() -> None:
    assert set(CAPABILITIES) <= set(LOADED.capabilities)


def test_every_input_is_classified_and_no_class_is_left_over(manifest: Capability) -> None:
    assert set(manifest.parameters) == set(manifest.input_schema["properties"])


def test_schemas_are_valid_and_closed_at_every_level(manifest: Capability) -> None:
    for schema in (manifest.input_schema, manifest.output_schema):
        Draft202012Validator.check_schema(schema)
        for place, part in objects_in(schema):
            assert part.get("additionalProperties") is False, place
            assert set(part.get("required", ())) <= set(part["properties"]), place


def test_every_array_and_text_is_bounded(manifest: Capability) -> None:
    def unbounded(schema: Any, place: str) -> list[str]:
        if not isinstance(schema, dict):
            return []
        found = [place] if schema.get("type") == "array" and "maxItems" not in schema else []
        bounded = {"maxLength", "enum", "pattern", "format"} & set(schema)
        if schema.get("type") == "string" and not bounded:
            found.append(place)
        return found + [at for key, value in schema.items() for at in unbounded(value, f"{place}/{key}")]

    assert unbounded(manifest.input_schema, "input") == []
    assert unbounded(manifest.output_schema, "output") == []


def test_examples_are_many_varied_sentences(manifest: Capability) -> None:
    assert len(manifest.examples) >= 6
    assert len({example.lower() for example in manifest.examples}) == len(manifest.examples)
    assert len({re.findall(r"\w+", example.lower())[0] for example in manifest.examples}) >= 4


def test_manifest_says_what_a_call_costs_and_how_it_may_be_trusted(manifest: Capability) -> None:
    assert manifest.delivery == ("service_bus" if manifest.name == "mmm.fit" else "http")
    assert manifest.idempotent
    assert manifest.cost.per_call_micro_usd > 0
    assert manifest.timeout_s <= 60
    assert manifest.output_label.integrity < 3, "only a user's own words are fully trusted"


def test_documents_are_not_trusted_and_calls_outside_name_their_host() -> None:
    assert LOADED.capabilities["rag.search"].output_label.integrity == 0
    for name in CAPABILITIES:
        manifest = LOADED.capabilities[name]
        assert bool(manifest.egress_hosts) == (manifest.side_effect == "external"), name


SHARED = [
    ("marketing.query_performance", "rows", "mmm.fit", "rows"),
    ("marketing.query_performance", "sales", "mmm.fit", "sales"),
    ("mmm.fit", "model", "mmm.allocate_budget", "model"),
    ("marketing.compare_periods", "changes", "insights.summarise", "changes"),
    ("mmm.fit", "channels", "insights.summarise", "channels"),
    ("mmm.fit", "warnings", "insights.summarise", "warnings"),
    ("mmm.allocate_budget", "allocation", "insights.summarise", "allocation"),
    ("rag.search", "passages", "insights.summarise", "passages"),
]


@pytest.mark.parametrize(("producer", "output", "consumer", "inputs"), SHARED)
def test_what_one_hands_on_is_exactly_what_the_other_takes(
    producer: str, output: str, consumer: str, inputs: str
) -> None:
    given = dict(LOADED.capabilities[producer].output_schema["properties"][output])
    taken = dict(LOADED.capabilities[consumer].input_schema["properties"][inputs])
    taken.pop("description", None)
    assert given == taken


def story() -> dict[str, Any]:
    """The plan that the sample data are made for."""
    period = {"from": "2026-07-01", "to": "2026-09-30"}
    moved = {f"expected_uplift{end}": {"$ref": f"steps.budget#/expected_uplift{end}"} for end in ("", "_low", "_high")}
    return {
        "schema_version": "1.0",
        "goal": "Why did paid-search ROI fall in Q3 and how should the Q4 budget move?",
        "steps": [
            {"id": "spend", "capability": "marketing.query_performance", "inputs": {**period, "from": "2023-10-01"}},
            {"id": "changes", "capability": "marketing.compare_periods", "inputs": period},
            {
                "id": "mix",
                "capability": "mmm.fit",
                "inputs": {
                    **period,
                    "rows": {"$ref": "steps.spend#/rows"},
                    "sales": {"$ref": "steps.spend#/sales"},
                    "currency": {"$ref": "steps.spend#/currency"},
                },
            },
            {
                "id": "budget",
                "capability": "mmm.allocate_budget",
                "inputs": {"model": {"$ref": "steps.mix#/model"}, "total_budget": 1_150_000},
            },
            {
                "id": "notes",
                "for_each": {"$ref": "steps.mix#/channels"},
                "max_items": 30,
                "capability": "rag.search",
                "inputs": {"query": {"$template": "budget notes on {channel}", "channel": {"$ref": "item#/channel"}}},
            },
            {"id": "brief", "capability": "rag.search", "inputs": {"query": {"$ref": "run#/intent"}}},
            {
                "id": "rate",
                "capability": "rates.lookup",
                "inputs": {"base": "GBP", "quote": "EUR", "date": "2026-09-30", "amount": 1_150_000},
            },
            {
                "id": "findings",
                "capability": "insights.summarise",
                "inputs": {
                    "currency": {"$ref": "steps.mix#/currency"},
                    "changes": {"$ref": "steps.changes#/changes"},
                    "channels": {"$ref": "steps.mix#/channels"},
                    "allocation": {"$ref": "steps.budget#/allocation"},
                    "passages": {"$ref": "steps.brief#/passages"},
                    "warnings": {"$ref": "steps.mix#/warnings"},
                    **moved,
                },
            },
        ],
        "answer": {"uses": ["findings", "mix", "budget", "changes", "notes", "rate"], "instructions": ""},
    }


def test_a_plan_over_all_capabilities_type_checks_for_contoso() -> None:
    result = check_plan(story(), tenant=tenant("contoso"), catalog=LOADED)
    assert [(error.code, error.pointer) for error in result.violations] == []


def test_a_reference_of_the_wrong_type_is_noticed() -> None:
    plan = story()
    plan["steps"][3]["inputs"]["model"] = {"$ref": "steps.mix#/channels"}
    result = check_plan(plan, tenant=tenant("contoso"), catalog=LOADED)
    assert [error.pointer for error in result.violations] == ["/steps/3/inputs/model"]


def test_fabrikam_has_no_mix_model_and_no_rates() -> None:
    result = check_plan(story(), tenant=tenant("fabrikam"), catalog=LOADED)
    refused = {error.pointer for error in result.violations if "not_enabled" in error.code}
    assert refused == {f"/steps/{number}/capability" for number in (2, 3, 6)}


@pytest.mark.parametrize("tenant_id", ["contoso", "fabrikam"])
def test_tenants_enable_only_what_exists_and_trust_no_directory_by_default(tenant_id: str) -> None:
    config = tenant(tenant_id)
    assert set(config.enabled_capabilities) <= set(LOADED.capabilities)
    assert config.issuers == ()
    assert config.allowed_client_apps == ()


def test_contoso_may_use_everything() -> None:
    assert set(CAPABILITIES) - {"lakehouse.report"} <= set(tenant("contoso").enabled_capabilities)
