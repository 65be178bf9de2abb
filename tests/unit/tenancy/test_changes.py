"""What a tenant's own admin may write, and what holds after the operator and the admin have both spoken."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.tenant import TenantConfig
from engine.domain.tenant_changes import (
    NARROWED_NUMBERS,
    NARROWED_OTHERWISE,
    NARROWED_SETS,
    OWN,
    changed_fields,
    config_sha256,
    effective,
    etag_of,
    violations_of_change,
)

OPERATORS = {"tenant_id", "region", "tier", "issuers", "allowed_client_apps", "message_senders", "breaker"}
BASE: dict[str, Any] = {
    "tenant_id": "contoso",
    "display_name": "Contoso",
    "region": "uksouth",
    "regions": ["uksouth", "westeurope"],
    "issuers": [{"issuer": "https://login.test/d/v2.0", "directory_id": "d"}],
    "allowed_client_apps": ["app"],
    "enabled_capabilities": ["a.b", "c.d"],
    "enabled_playbooks": ["one", "two"],
    "egress_hosts": ["api.example.com"],
    "models": {"planner": ["large", "small"]},
    "planner": {"self_critique": "on_risk", "max_repairs": 2},
    "answer": {"link_hosts": ["docs.example.com"]},
    "personal_data": {"detect": "outgoing", "types": ["CREDIT_CARD", "PHONE_NUMBER"]},
}

SENDER_KEY = {"key_id": "1", "x": "x" * 43, "y": "y" * 43}
OTHER_ISSUER = {"issuer": "https://evil.test", "directory_id": "e"}


def config(version: int = 1, **fields: Any) -> TenantConfig:
    return TenantConfig.model_validate(BASE | {"version": version} | fields)


def test_every_field_belongs_to_somebody() -> None:
    known = OWN | NARROWED_SETS | set(NARROWED_NUMBERS) | NARROWED_OTHERWISE | OPERATORS | {"version"}
    assert known == set(TenantConfig.model_fields), "a new field: decide whose it is; until then it is the operator's"


def test_nothing_changed_is_nothing_wrong() -> None:
    assert violations_of_change(config(), config(7)) == []


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"tenant_id": "fabrikam"}, "/tenant_id", "tenant.operator_only"),
        ({"tier": "dedicated"}, "/tier", "tenant.operator_only"),
        ({"region": "westeurope"}, "/region", "tenant.operator_only"),
        ({"issuers": [*BASE["issuers"], OTHER_ISSUER]}, "/issuers", "tenant.operator_only"),
        ({"issuers": []}, "/issuers", "tenant.operator_only"),
        ({"allowed_client_apps": ["app", "mine"]}, "/allowed_client_apps", "tenant.operator_only"),
        ({"message_senders": [{"name": "me", "keys": [SENDER_KEY]}]}, "/message_senders", "tenant.operator_only"),
        ({"breaker": {"consecutive_failures": 900}}, "/breaker", "tenant.operator_only"),
        ({"enabled_capabilities": ["a.b", "x.y"]}, "/enabled_capabilities/1", "tenant.widens"),
        ({"enabled_playbooks": ["one", "three"]}, "/enabled_playbooks/1", "tenant.widens"),
        ({"enabled_playbooks": None}, "/enabled_playbooks", "tenant.widens"),
        ({"egress_hosts": ["api.example.com:8443"]}, "/egress_hosts/0", "tenant.widens"),
        ({"regions": ["any"]}, "/regions/0", "tenant.widens"),
        ({"models": {"planner": ["huge"]}}, "/models/planner/0", "tenant.widens"),
        ({"models": {"planner": []}}, "/models/planner", "tenant.widens"),
        ({"models": {"planner": ["large"], "router": ["large"]}}, "/models/router/0", "tenant.widens"),
        ({"planner": {"self_critique": "never"}}, "/planner/self_critique", "tenant.widens"),
        ({"planner": {"max_repairs": 3}}, "/planner/max_repairs", "tenant.widens"),
        ({"planner": {"max_run_repairs": 3}}, "/planner/max_run_repairs", "tenant.widens"),
        ({"bounds": {"max_steps": 201}}, "/bounds/max_steps", "tenant.widens"),
        ({"bounds": {"max_cost_micro_usd": 5_000_001}}, "/bounds/max_cost_micro_usd", "tenant.widens"),
        ({"budgets": {"daily_tokens": 20_000_001}}, "/budgets/daily_tokens", "tenant.widens"),
        ({"quota": {"max_concurrent_runs": 21}}, "/quota/max_concurrent_runs", "tenant.widens"),
        ({"quota": {"lease_s": 20}}, "/quota/lease_s", "tenant.operator_only"),
        ({"approvals": {"timeout_s": 86_401}}, "/approvals/timeout_s", "tenant.widens"),
        ({"answer": {"link_hosts": ["evil.test"]}}, "/answer/link_hosts/0", "tenant.widens"),
        ({"personal_data": {"types": ["CREDIT_CARD", "PHONE_NUMBER"]}}, "/personal_data/detect", "tenant.widens"),
        ({"personal_data": {"detect": "outgoing", "types": ["PERSON"]}}, "/personal_data/types", "tenant.widens"),
    ],
)  # fmt: skip
def test_an_admin_cannot(fields: dict[str, Any], pointer: str, code: str) -> None:
    found = violations_of_change(config(), config(**fields))
    assert [(violation.pointer, violation.code) for violation in found] == [(pointer, code)]
    # Even were it written, it would not hold.
    held, field = effective(config(), config(2, **fields)), pointer.split("/")[1]
    assert violations_of_change(config(), held) == []
    if code == "tenant.operator_only":
        assert getattr(held, field) == getattr(config(), field)


def test_everything_wrong_is_said_at_once() -> None:
    wanted = config(
        tier="dedicated", bounds={"max_steps": 5_000, "max_depth": 5_000}, egress_hosts=["a.test", "b.test"]
    )
    found = {violation.pointer for violation in violations_of_change(config(), wanted)}
    assert found == {"/tier", "/bounds/max_steps", "/bounds/max_depth", "/egress_hosts/0", "/egress_hosts/1"}


NARROWER: dict[str, Any] = {
    "personal_data": {"detect": "outgoing", "types": ["PERSON", "PHONE_NUMBER", "CREDIT_CARD"]},
    "display_name": "Contoso Ltd",
    "directories": {"recipients": ["ana@contoso.example"]},
    "status": "suspended",
    "regions": ["westeurope"],
    "enabled_capabilities": ["c.d"],
    "enabled_playbooks": [],
    "egress_hosts": [],
    "models": {"planner": ["small"]},
    "planner": {"self_critique": "always", "max_repairs": 0, "max_run_repairs": 0},
    "bounds": {"max_steps": 10, "max_wall_time_s": 60},
    "budgets": {"daily_cost_micro_usd": 0},
    "quota": {"max_concurrent_runs": 1},
    "approvals": {"timeout_s": 60},
    "answer": {"link_hosts": []},
}


def test_an_admin_can_narrow_everything_else_and_it_holds() -> None:
    wanted = config(2, **NARROWER)
    assert violations_of_change(config(), wanted) == []
    assert effective(config(), wanted) == wanted
    assert set(changed_fields(config(), wanted)) == set(NARROWER)


def test_what_the_operator_takes_back_is_gone_at_once() -> None:
    own = config(
        5,
        enabled_capabilities=["a.b"],
        regions=["westeurope"],
        bounds={"max_steps": 100},
        models={"planner": ["small"]},
    )
    less = config(
        1, enabled_capabilities=["c.d"], regions=["uksouth"], bounds={"max_steps": 50}, models={"planner": ["large"]}
    )
    held = effective(less, own)
    assert held.enabled_capabilities == ()
    assert not held.permits_region("uksouth")
    assert not held.permits_region("westeurope")
    assert held.bounds.max_steps == 50
    assert held.models.planner == ("large",)
    assert effective(config(1, status="suspended"), own).status == "suspended"
    assert effective(config(1, issuers=[]), own).issuers == ()


def test_a_newer_page_of_the_operator_starts_anew() -> None:
    own = config(5, status="suspended", enabled_capabilities=[])
    assert effective(config(4), own).status == "suspended"
    assert effective(config(5), own) == config(5)
    assert effective(config(6), own) == config(6)
    assert effective(config(6), None) == config(6)


def test_the_tag_changes_with_version_and_content() -> None:
    assert len({etag_of(config()), etag_of(config(2)), etag_of(config(tier="dedicated"))}) == 3
    assert etag_of(config()) == etag_of(TenantConfig.model_validate_json(config().model_dump_json()))
    assert config_sha256(config()) != config_sha256(config(2))


NAMES = st.lists(st.sampled_from(["a.b", "c.d", "e.f"]), unique=True)
REGIONS = st.lists(st.sampled_from(["uksouth", "westeurope", "eastus", "any"]), unique=True)
CONFIGS = st.builds(
    dict,
    status=st.sampled_from(["active", "suspended"]),
    tier=st.sampled_from(["shared", "dedicated"]),
    region=st.sampled_from(["uksouth", "westeurope", "any"]),
    regions=REGIONS,
    enabled_capabilities=NAMES,
    enabled_playbooks=st.none() | NAMES,
    egress_hosts=NAMES,
    models=st.fixed_dictionaries({"planner": NAMES, "router": NAMES}),
    planner=st.fixed_dictionaries(
        {"self_critique": st.sampled_from(["never", "on_risk", "always"]), "max_repairs": st.integers(0, 5)}
    ),
    bounds=st.fixed_dictionaries({"max_steps": st.integers(1, 5_000), "max_cost_micro_usd": st.integers(0, 10**9)}),
    quota=st.fixed_dictionaries({"max_concurrent_runs": st.integers(1, 1_000), "lease_s": st.integers(10, 100)}),
    answer=st.fixed_dictionaries({"link_hosts": NAMES}),
    personal_data=st.fixed_dictionaries(
        {
            "detect": st.sampled_from(["off", "outgoing"]),
            "types": st.lists(st.sampled_from(["PERSON", "IBAN_CODE", "US_SSN"]), unique=True, min_size=1),
        }
    ),
)


@given(CONFIGS, CONFIGS)
def test_whatever_an_admin_has_written_what_holds_never_exceeds_the_operators_page(
    base_fields: dict[str, Any], own_fields: dict[str, Any]
) -> None:
    base, own = config(1, **base_fields), config(2, **own_fields)
    held = effective(base, own)
    assert violations_of_change(base, held) == []
    assert TenantConfig.model_validate(held.model_dump()) == held
    assert effective(base, held) == held
    for region in ("uksouth", "westeurope", "eastus"):
        assert not held.permits_region(region) or base.permits_region(region)


@given(CONFIGS, CONFIGS)
def test_what_an_admin_may_write_holds_as_written(base_fields: dict[str, Any], own_fields: dict[str, Any]) -> None:
    base, own = config(1, **base_fields), config(2, **own_fields)
    if not violations_of_change(base, own):
        held = effective(base, own)
        assert held.model_copy(update={"status": own.status, "regions": own.regions}) == own
        assert all(held.permits_region(region) == own.permits_region(region) for region in ("uksouth", "eastus"))


def test_the_operators_silence_lets_an_admin_switch_detection_on_and_nothing_switches_it_off() -> None:
    quiet = {"personal_data": {"detect": "off"}}
    loud = {"personal_data": {"detect": "outgoing", "types": ["PERSON"]}}
    assert effective(config(**quiet), config(2, **loud)).personal_data == config(**loud).personal_data
    assert effective(config(**loud), config(2, **quiet)).personal_data == config(**loud).personal_data
    both = effective(config(), config(2, **loud)).personal_data
    assert set(both.types) == {"PERSON", "CREDIT_CARD", "PHONE_NUMBER"}
