"""Random plans that pass every check, and the capabilities they call. A seed decides everything.

All capabilities share one shape: a number and a note in, a number, a note and a few rows out. Every note carries the canary,
so that content which turns up where only ids and codes belong is found by a search for one word.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from engine.adapters.memory import MemoryCatalog
from engine.domain.capability import Capability, CostModel
from engine.domain.run import Document, RunContext, RunRequest
from engine.domain.tenant import ApprovalRules, Bounds, TenantConfig
from engine.plan import CheckedPlan, check_plan

CANARY = "canary-Kx7Qz"
TENANT = "contoso"
DAY_S = 86_400

_NOTE = {"type": "string", "maxLength": 100_000}
_ROW = {
    "type": "object",
    "additionalProperties": False,
    "required": ["n", "note"],
    "properties": {"n": {"type": "integer"}, "note": _NOTE},
}
_OUTPUT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["n", "note", "rows"],
    "properties": {"n": {"type": "integer"}, "note": _NOTE, "rows": {"type": "array", "items": _ROW}},
}


def _capability(name: str, **fields: Any) -> Capability:
    base: dict[str, Any] = {
        "name": name,
        "version": "1.0.0",
        "title": name,
        "description": name,
        "delivery": "http",
        "endpoint": "chaos",
        "input_schema": _ROW,
        "parameters": {"n": "payload", "note": "payload"},
        "output_schema": _OUTPUT,
        "side_effect": "read",
        "idempotent": True,
        "timeout_s": 60.0,
        "cost": CostModel(per_call_micro_usd=100),
    }
    return Capability.model_validate(base | fields)


REVOCABLE = "chaos.revocable"
BOOK, UNBOOK, FRAIL = "chaos.book", "chaos.unbook", "chaos.frail"
CAPABILITIES = (
    _capability("chaos.work"),
    _capability("chaos.slow", timeout_s=20.0, cost=CostModel(per_call_micro_usd=70)),
    _capability("chaos.send", side_effect="external", idempotent=False, cost=CostModel(per_call_micro_usd=30)),
    _capability(REVOCABLE, cost=CostModel(per_call_micro_usd=10)),
    _capability(BOOK, side_effect="external", idempotent=False, compensation_required=True),
    _capability(UNBOOK, side_effect="external", cost=CostModel(per_call_micro_usd=1)),
    _capability(FRAIL, fallback="chaos.work"),
)
CATALOG = MemoryCatalog(CAPABILITIES)


def tenant_config(chance: random.Random) -> TenantConfig:
    """The tenant, with a seeded cap on parallel steps."""
    return TenantConfig(
        tenant_id=TENANT,
        display_name="Contoso",
        enabled_capabilities=tuple(capability.name for capability in CAPABILITIES),
        approvals=ApprovalRules(timeout_s=3_000),
        bounds=Bounds(max_parallel_steps=chance.choice((1, 2, 4, 8, 32)), max_wall_time_s=20 * DAY_S),
    )


def random_request(
    chance: random.Random,
    tenant: TenantConfig,
    *,
    is_long: bool = False,
    twisted: Callable[[dict[str, Any]], None] = lambda _: None,
) -> tuple[RunRequest, CheckedPlan]:
    """A request that brings its own plan, and the plan as its check sees it. A long one waits for days somewhere."""
    document = _plan(chance)
    if is_long:
        document["steps"].append({"id": "days", "wait": {"for_s": 6 * DAY_S}})
    twisted(document)
    checked = check_plan(document, tenant=tenant, catalog=CATALOG)
    assert checked.plan is not None, f"the generator made a plan that is refused: {checked.violations}"
    context = RunContext(
        values={"n": chance.randrange(5), "note": f"value {CANARY}"},
        documents=(Document(name="brief", text=f"document {CANARY}"),),
    )
    request = RunRequest(intent=f"intent {CANARY}", goals=(f"goal {CANARY}",), context=context, plan=document)
    return request, checked.plan


def _plan(chance: random.Random) -> dict[str, Any]:
    count = chance.randint(5, 40)
    steps: list[dict[str, Any]] = []
    for index in range(count):
        earlier = [entry for entry in steps[-12:] if chance.random() < 0.16][:3]
        steps.append(_step(chance, f"s{index}", earlier))
    chance.shuffle(steps)  # a plan lists its steps in any order
    uses = chance.sample([entry["id"] for entry in steps], k=min(count, 5))
    return {"goal": f"goal {CANARY}", "steps": steps, "answer": {"uses": uses}}


def _step(chance: random.Random, step_id: str, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    producers = [entry["id"] for entry in earlier if "capability" in entry and "for_each" not in entry]
    step: dict[str, Any] = {"id": step_id}
    if earlier:
        step["needs"] = [entry["id"] for entry in earlier if entry["id"] not in producers or chance.random() < 0.4]
    if producers and chance.random() < 0.2:
        op = chance.choice(("ge", "ge", "ne", "lt"))
        step["when"] = {"left": _number(chance, producers), "op": op, "right": chance.randrange(6)}
    if chance.random() < 0.15:
        step["optional"] = True
    if chance.random() < 0.08:
        return step | {"wait": {"for_s": chance.choice((0, 0.05, 3, 45, 600))}}
    return step | _call(chance, producers)


def _call(chance: random.Random, producers: list[str]) -> dict[str, Any]:
    names = [capability.name for capability in CAPABILITIES[:4]]
    call: dict[str, Any] = {"capability": chance.choices(names, (6, 2, 2, 2))[0]}
    if chance.random() < 0.6:
        call["retry"] = {
            "max_attempts": chance.randint(1, 5),
            "backoff_s": chance.choice((0, 0.5, 2, 20)),
            "factor": chance.choice((1, 2, 3)),
        }
    if chance.random() < 0.35:
        call["on_failure"] = "skip"
    if chance.random() < 0.3:
        call["timeout_s"] = chance.choice((2, 10, 60))
    if chance.random() < 0.12:
        return call | _map(chance, producers)
    return call | {"inputs": {"n": _number(chance, producers), "note": _note(chance, producers)}}


def _map(chance: random.Random, producers: list[str]) -> dict[str, Any]:
    items: Any = [{"n": n, "note": f"row {n} {CANARY}"} for n in range(chance.choice((0, 1, 3, 7, 12)))]
    if producers and chance.random() < 0.5:
        items = {"$ref": f"steps.{chance.choice(producers)}#/rows"}
    inputs = {"n": {"$ref": "item#/n"}, "note": {"$ref": "item#/note"}}
    return {"for_each": items, "concurrency": chance.choice((1, 2, 5, 20)), "inputs": inputs}


def _number(chance: random.Random, producers: list[str]) -> Any:
    if not producers or chance.random() < 0.2:
        return chance.choice((chance.randrange(10), {"$ref": "run#/context/values/n"}))
    reference = {"$ref": f"steps.{chance.choice(producers)}#/n"}
    return reference | {"default": chance.randrange(5)} if chance.random() < 0.3 else reference


def _note(chance: random.Random, producers: list[str]) -> Any:
    if producers and chance.random() < 0.3:
        reference = {"$ref": f"steps.{chance.choice(producers)}#/note", "default": f"none {CANARY}"}
        return {"$template": "again {note}", "note": reference}
    return chance.choice(
        (f"literal {CANARY}", {"$ref": "run#/context/values/note"}, {"$ref": "run#/context/documents/0/text"})
    )
