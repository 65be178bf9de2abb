"""No port can be asked about a tenant's data without naming the tenant. Read off the ports, so that a new one counts."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import engine.ports

ROOT = Path(__file__).resolve().parents[3]

NOT_A_TENANTS = {
    "AnswerComposer": "makes an answer of what it is handed with the run's own request, and looks nothing up",
    "AnswerSink": "one answer of one run, made for it",
    "Catalog": "the platform's own manifests, the same for all",
    "CatalogWatch": "looks at the files of the platform's own manifests, the same for all",
    "ChatModels": "carries a prompt to a model and keeps nothing",
    "Clock": "the time",
    "Committer": "a keyed hash of one run, made for it",
    "EntityDoor": "holds circuits, which are the platform's, and counts of runs under keys that adapters derive from a tenant",
    "EnvelopeVerifier": "finds out which tenant it is",
    "HeldMessages": "settles one message by its lock, whoever it is from",
    "Grants": "signs for the tenant of the request that it is handed, and publishes the platform's own public keys",
    "KeyWrapper": "wraps what it is handed with the platform's key and keeps nothing",
    "PersonalDataDetector": "looks at the text it is handed and keeps nothing",
    "RunEventTopic": "sends what it is handed, each with its tenant",
    "RejectionLog": "takes the tenant from the speaker, where one is verified",
    "Signer": "signs what it is handed with the platform's key and keeps nothing",
    "Span": "ids, codes and counts",
    "Telemetry": "ids, codes and counts",
    "TokenValidator": "finds out which tenant it is",
}
"""Ports that hold no tenant's data. A new port is in nobody's list and fails until somebody decides."""

ACROSS_TENANTS = {
    ("RunStore", "unfinished"),
    ("Outbox", "runs_waiting"),
    ("ApprovalStore", "answered_since"),
    ("Assignments", "overdue"),
    ("Assignments", "ended_since"),
    ("TenantDirectory", "by_directory"),
    ("TenantDirectory", "all"),
}
"""What recovery and the finding of tenants need. None of it may be reached from a route that has a caller."""


def ports() -> dict[str, type]:
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(engine.ports.__path__):
        for name, value in vars(importlib.import_module(f"engine.ports.{module.name}")).items():
            if (
                inspect.isclass(value)
                and getattr(value, "_is_protocol", False)
                and value.__module__.startswith("engine.ports")
            ):
                found[name] = value
    return found


def methods(port: type) -> dict[str, Any]:
    return {
        name: member for name, member in vars(port).items() if inspect.isfunction(member) and not name.startswith("_")
    }


ASKED = [
    (name, method)
    for name, port in sorted(ports().items())
    if name not in NOT_A_TENANTS
    for method in methods(port)
    if (name, method) not in ACROSS_TENANTS
]


def names_a_tenant(annotation: Any) -> bool:
    """True for a model that says whose it is: by its id, or by carrying the tenant, its run, a step's record or its principal."""
    if not inspect.isclass(annotation):
        return False
    if issubclass(annotation, BaseModel):
        fields = {name: field.annotation for name, field in annotation.model_fields.items()}
    elif dataclasses.is_dataclass(annotation):
        fields = typing.get_type_hints(annotation)
    else:
        return False
    return "tenant_id" in fields or any(
        name in ("tenant", "run", "step", "record", "principal") and names_a_tenant(kind)
        for name, kind in fields.items()
    )


def test_the_ports_are_found() -> None:
    found = ports()
    assert {
        "RunStore",
        "EventLog",
        "PayloadStore",
        "AuditLog",
        "BudgetLedger",
        "ApprovalStore",
        "TenantConfigs",
    } <= set(found)
    assert set(NOT_A_TENANTS) <= set(found)
    assert {(port, method) for port, method in ACROSS_TENANTS if method not in methods(found[port])} == set()


@pytest.mark.parametrize(("port", "method"), ASKED, ids=[f"{port}.{method}" for port, method in ASKED])
def test_a_method_that_touches_tenant_data_names_the_tenant_first(port: str, method: str) -> None:
    member = methods(ports()[port])[method]
    parameters = list(inspect.signature(member).parameters.values())[1:]
    assert parameters, "it takes nothing, so it cannot know whose data it is about"
    hints = typing.get_type_hints(member)
    given = [parameter for parameter in parameters if parameter.default is inspect.Parameter.empty]
    first = given[0]
    assert (first.name == "tenant_id" and hints[first.name] is str) or any(
        names_a_tenant(hints[parameter.name]) for parameter in given
    ), f"{port}.{method}({first.name}: {hints[first.name]}) can be called without saying for whom"


@pytest.mark.parametrize(("port", "method"), sorted(ACROSS_TENANTS), ids=str)
def test_what_reads_across_tenants_is_out_of_reach_of_every_caller(port: str, method: str) -> None:
    attributes = {
        "RunStore": "runs",
        "Outbox": "outbox",
        "ApprovalStore": "approvals",
        "TenantDirectory": "tenants",
        "Assignments": "assignments",
    }
    attribute = attributes[port]
    used = [
        path.name
        for folder in ("triggers", "engine/step_runner", "policy", "planner_graph")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if f"{attribute}.{method}(" in path.read_text()
    ]
    assert [name for name in used if not name.startswith("timer_")] == []


def test_a_method_without_a_tenant_would_be_noticed() -> None:
    assert not names_a_tenant(str)
    assert not names_a_tenant(engine.ports)

    @dataclasses.dataclass
    class Anybodys:
        run_id: str

    @dataclasses.dataclass
    class Somebodys:
        tenant_id: str

    assert not names_a_tenant(Anybodys)
    assert names_a_tenant(Somebodys)
