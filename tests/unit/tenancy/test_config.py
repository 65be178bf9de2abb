"""The one schema of a tenant: defaults that are safe, bounds that hold, and what its questions answer."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from engine.domain.tenant import BreakerRules, Budgets, Quota, TenantConfig


def tenant(**fields: Any) -> TenantConfig:
    return TenantConfig.model_validate({"tenant_id": "contoso", "display_name": "Contoso"} | fields)


def test_a_tenant_of_before_has_the_defaults_and_no_outside() -> None:
    plain = tenant()
    assert (plain.version, plain.egress_hosts, plain.enabled_playbooks) == (1, (), None)
    assert (plain.budgets, plain.quota, plain.breaker) == (Budgets(), Quota(), BreakerRules())
    assert plain.breaker.consecutive_failures == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"egress_hosts": ["*.example.com"]},
        {"egress_hosts": ["https://api.example.com"]},
        {"egress_hosts": ["2130706433"]},
        {"egress_hosts": ["a"] * 201},
        {"regions": ["UK South"]},
        {"region": ""},
        {"version": 0},
        {"budgets": {"daily_cost_micro_usd": -1}},
        {"budgets": {"daily_tokens": 10**12}},
        {"quota": {"max_concurrent_runs": 0}},
        {"quota": {"max_concurrent_runs": 1_001}},
        {"breaker": {"failure_percent": 0}},
        {"breaker": {"probes": 11}},
        {"breaker": {"unheard_of": 1}},
    ],
)
def test_what_lies_outside_the_platforms_limits_is_no_configuration(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        tenant(**fields)


def test_hosts_are_kept_in_one_spelling_that_reads_back() -> None:
    hosts = tenant(egress_hosts=["API.Example.com:443", "[0:0::1]", "[::1]:80"]).egress_hosts
    assert hosts == ("api.example.com:443", "[::1]", "[::1]:80")
    assert tenant(egress_hosts=hosts).egress_hosts == hosts


@pytest.mark.parametrize(
    ("fields", "region", "permitted"),
    [
        ({}, "westeurope", True),
        ({"region": "uksouth"}, "uksouth", True),
        ({"region": "uksouth"}, "any", True),
        ({"region": "uksouth"}, "westeurope", False),
        ({"region": "uksouth", "regions": ["westeurope"]}, "westeurope", True),
        ({"region": "uksouth", "regions": ["westeurope"]}, "uksouth", False),
        ({"region": "uksouth", "regions": ["any"]}, "eastasia", True),
    ],
)
def test_data_stays_in_the_regions_of_its_tenant(fields: dict[str, Any], region: str, permitted: bool) -> None:
    assert tenant(**fields).permits_region(region) is permitted


def test_playbooks_can_be_confined() -> None:
    assert tenant().enables_playbook("anything")
    assert tenant(enabled_playbooks=["one"]).enables_playbook("one")
    assert not tenant(enabled_playbooks=["one"]).enables_playbook("two")
    assert not tenant(enabled_playbooks=[]).enables_playbook("one")
