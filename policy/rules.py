"""One policy as the engine keeps it: its parsed form, what it says about itself, and what it looks at.

A policy is read once, when it is loaded; decisions use what is written down here and never look into its text again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from engine.domain.base import JsonObject
from engine.domain.policy import Cure
from policy.schema import ACTION_TYPE

ABOUTS = ("selectors", "payload", "control", "hosts", "confidentiality")
ABOUT_INPUT = "input."
"""``@about("input.weekly_amount")``: the policy is about this argument."""
CURES = ("approval:four-eyes", "redaction")
ANNOTATIONS = frozenset({"id", "severity", "cure", "message", "about"})


@dataclass(frozen=True, slots=True)
class Layer:
    """Whose policies: the platform's, the platform's for tenants without their own, or one tenant's."""

    kind: Literal["platform", "default", "tenant"]
    tenant_id: str = ""

    @property
    def prefix(self) -> str:
        """What the ids of its policies begin with."""
        match self.kind:
            case "platform":
                return "plat."
            case "default":
                return "default."
            case "tenant":
                return f"t/{self.tenant_id}/"


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy. ``est`` is its JSON form. ``actions`` are the action and group names its scope asks for, None for any action.

    ``inputs`` are the arguments its conditions read, None when it may read all of them: until those are bound, whether it is
    satisfied is not certain.
    """

    id: str
    forbids: bool
    est: JsonObject
    cure: Cure | None = None
    message: str = ""
    about: str = ""
    actions: frozenset[str] | None = None
    inputs: frozenset[str] | None = frozenset()

    def applies_to(self, actions: frozenset[str]) -> bool:
        """False when the scope rules out an action that is, or is in, each of ``actions``."""
        return self.actions is None or not self.actions.isdisjoint(actions)

    def certain_with(self, bound: frozenset[str]) -> bool:
        """True when nothing it looks at can still change once the arguments ``bound`` are known."""
        return self.inputs is not None and self.inputs <= bound


def rule_of(est: JsonObject) -> Rule:
    """Read a policy in its JSON form. Whether what it says is permitted is asked by ``policy.lint``."""
    notes = annotations_of(est)
    return Rule(
        id=notes.get("id", ""),
        forbids=est["effect"] == "forbid",
        est=est,
        cure=_cure(notes),
        message=notes.get("message", ""),
        about=notes.get("about", ""),
        actions=scope_actions(est["action"]),
        inputs=_inputs(est),
    )


def annotations_of(est: JsonObject) -> dict[str, str]:
    """The annotations of a policy; one without a value is the empty text."""
    return {name: value or "" for name, value in est.get("annotations", {}).items()}


def entities_in(est: JsonObject) -> Iterator[tuple[str, str]]:
    """Every entity a policy names, as (type, id), in scope and conditions."""
    stack: list[Any] = [est]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            found = node.get("__entity", node)
            if isinstance(found, dict) and set(found) == {"type", "id"} and isinstance(found["type"], str):
                yield found["type"], str(found["id"])
            else:
                stack.extend(node.values())


def context_reads(est: JsonObject) -> frozenset[tuple[str, ...]]:
    """The ways into ``context`` that the conditions go, as names from the top; a way may stop above what it reads."""
    found: set[tuple[str, ...]] = set()
    stack: list[Any] = [condition["body"] for condition in est.get("conditions", ())]
    while stack:
        node = stack.pop()
        way = _way(node)
        if way is not None:
            found.add(way)
        elif isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return frozenset(found)


def _way(node: Any) -> tuple[str, ...] | None:
    """``context.input.to`` and ``context.input has to`` as ("input", "to"); None for anything else."""
    names: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        (kind, body), *_ = node.items()
        if kind == "Var":
            return tuple(reversed(names)) if body == "context" else None
        if kind not in (".", "has") or not isinstance(body, dict):
            return None
        attr = body.get("attr")
        names.extend(reversed(attr) if isinstance(attr, list) else (str(attr),))
        node = body.get("left")
    return None


def _inputs(est: JsonObject) -> frozenset[str] | None:
    names: set[str] = set()
    for way in context_reads(est):
        if not way or way == ("input",):
            return None
        if way[0] == "input":
            names.add(way[1])
    return frozenset(names)


def scope_actions(scope: JsonObject) -> frozenset[str] | None:
    """The action and group names a scope asks for; None for any action."""
    match scope.get("op"):
        case "==":
            entities = [scope["entity"]]
        case "in":
            entities = scope["entities"] if "entities" in scope else [scope["entity"]]
        case _:
            return None
    if any(entity.get("type") != ACTION_TYPE for entity in entities):
        return None
    return frozenset(entity["id"] for entity in entities)


def _cure(notes: dict[str, str]) -> Cure | None:
    if notes.get("severity") != "curable":
        return None
    kind, _, detail = notes.get("cure", "").partition(":")
    return Cure(kind=kind, detail=detail)
