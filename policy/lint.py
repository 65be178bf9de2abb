"""What a policy may not say, although the language would let it: identity, reach, cures that cure nothing.

Run when policies are loaded, uploaded or checked by hand. Every finding names the file, the line and a stable code; one finding
is enough for the whole layer to be refused, because a set with a hole in it is another set than its owner wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.errors import Violation
from engine.domain.principal import Role
from policy.rules import (
    ABOUT_INPUT,
    ABOUTS,
    ANNOTATIONS,
    CURES,
    Layer,
    annotations_of,
    context_reads,
    entities_in,
    scope_actions,
)
from policy.schema import ACTION_TYPE, AGENT, GROUPS, NAMESPACE, PLAN, ROLE, TENANT, USER

MAX_POLICIES = 200
MAX_LAYER_BYTES = 200 * 1024
MAX_MESSAGE_CHARS = 300

_ID = re.compile(r"[a-z0-9][a-z0-9./_-]{0,99}")
"""Lower case only, so that no two ids differ in nothing but case."""

_ROLES = frozenset(role.value for role in Role)


@dataclass(frozen=True, slots=True)
class Written:
    """One policy in the place where it was written. ``line`` counts from 1."""

    file: str
    line: int
    est: JsonObject


def lint(policies: Sequence[Written], layer: Layer, agents: frozenset[str], schema: JsonObject) -> list[Violation]:
    """Everything wrong with the policies of one layer. ``agents`` are the ids of the agents the catalog knows, ``schema`` is the
    vocabulary in its JSON form."""
    found: list[Violation] = []
    if len(policies) > MAX_POLICIES:
        words = f"{len(policies)} policies are more than the {MAX_POLICIES} a layer may have"
        found.append(Violation(code="policy.too_many", pointer="", message=words))
    seen: dict[str, Written] = {}
    for one in policies:
        found.extend(_at(one, code, words) for code, words in _faults(one.est, layer, agents, schema))
        policy_id = annotations_of(one.est).get("id", "")
        first = seen.setdefault(policy_id, one)
        if policy_id and first is not one:
            words = f"the id {policy_id} is taken by {first.file}, line {first.line}"
            found.append(_at(one, "policy.id_repeated", words))
    return found


def _at(one: Written, code: str, words: str) -> Violation:
    return Violation(code=code, pointer=f"{one.file}#L{one.line}", message=words)


def _faults(est: JsonObject, layer: Layer, agents: frozenset[str], schema: JsonObject) -> Iterator[tuple[str, str]]:
    notes = annotations_of(est)
    yield from _id_faults(notes, layer)
    yield from _note_faults(notes)
    yield from _cure_faults(est, notes)
    yield from _reach_faults(est, layer)
    yield from _entity_faults(est, layer, agents)
    yield from _text_faults(est)
    yield from _word_faults(est, schema[NAMESPACE])


def _id_faults(notes: dict[str, str], layer: Layer) -> Iterator[tuple[str, str]]:
    policy_id = notes.get("id", "")
    if not policy_id:
        yield "policy.id_missing", "every policy needs an @id: it is what decisions and evidence name"
    elif not _ID.fullmatch(policy_id):
        yield "policy.id_invalid", "an id is lower-case ASCII: letters, digits, '.', '/', '_', '-', at most 100"
    elif not policy_id.startswith(layer.prefix) or policy_id == layer.prefix:
        yield "policy.id_foreign", f"ids of this layer begin with {layer.prefix}"


def _note_faults(notes: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(set(notes) - ANNOTATIONS):
        yield "policy.annotation_unknown", f"@{name} means nothing here; known are {', '.join(sorted(ANNOTATIONS))}"
    if notes.get("severity", "hard") not in ("hard", "curable"):
        yield "policy.severity_unknown", "severity is hard or curable"
    about = notes.get("about", "selectors")
    if about not in ABOUTS and not (about.startswith(ABOUT_INPUT) and about != ABOUT_INPUT):
        yield "policy.about_unknown", f"about is one of {', '.join(ABOUTS)}, or {ABOUT_INPUT} and an argument"
    message = notes.get("message", "")
    if len(message) > MAX_MESSAGE_CHARS or not message.isascii() or not message.isprintable():
        yield "policy.message_invalid", f"a message is one line of ASCII with at most {MAX_MESSAGE_CHARS} characters"


def _cure_faults(est: JsonObject, notes: dict[str, str]) -> Iterator[tuple[str, str]]:
    curable = notes.get("severity") == "curable"
    if not curable:
        if "cure" in notes:
            yield "policy.cure_without_curable", 'only @severity("curable") has a @cure'
        return
    if est["effect"] != "forbid":
        yield "policy.cure_of_permit", "only a forbid can be cured"
    if notes.get("cure") not in CURES:
        yield "policy.cure_unknown", f"cure is one of {', '.join(CURES)}"
    needed = "redacted" if notes.get("cure") == "redaction" else "approved"
    if not any(way[:2] == ("cures", needed) for way in context_reads(est)):
        words = f"a cure cures only what the policy says: add unless {{ context.cures.{needed} … }}"
        yield "policy.cure_without_effect", words


def _reach_faults(est: JsonObject, layer: Layer) -> Iterator[tuple[str, str]]:
    if est["effect"] != "permit":
        return
    if layer.kind == "platform":
        yield "policy.permit_by_platform", "the platform only forbids; who may do what is for the tenant"
    if layer.kind == "tenant" and not _in_tenant(est["principal"], layer.tenant_id):
        words = f'a permit is for the tenant\'s own people: principal in {TENANT}::"{layer.tenant_id}"'
        yield "policy.permit_too_wide", words


def _in_tenant(scope: JsonObject, tenant_id: str) -> bool:
    entity: Any = scope.get("entity")
    if scope.get("op") == "is":
        entity = (scope.get("in") or {}).get("entity")
    elif scope.get("op") != "in":
        return False
    return bool(entity == {"type": TENANT, "id": tenant_id})


def _entity_faults(est: JsonObject, layer: Layer, agents: frozenset[str]) -> Iterator[tuple[str, str]]:
    for kind, name in sorted(set(entities_in(est))):
        if not name.isascii() or not name.isprintable():
            # Escapes in the text can spell letters that the text itself may not have.
            yield "policy.entity_look_alike", f"the id of a {kind} has letters that are not ASCII"
        elif kind == ROLE and name not in _ROLES:
            yield "policy.role_unknown", f"there is no role {name}; known are {', '.join(sorted(_ROLES))}"
        elif kind == TENANT and layer.kind == "tenant" and name != layer.tenant_id:
            yield "policy.tenant_foreign", "a tenant's policies name no other tenant"
        elif kind == AGENT and name not in agents:
            yield "policy.agent_unknown", f"there is no agent {name} in the catalog"
        elif kind not in _KINDS:
            yield "policy.type_unknown", f"there is no type {kind}"


_KINDS = frozenset({USER, TENANT, ROLE, AGENT, PLAN, ACTION_TYPE})


def _text_faults(est: JsonObject) -> Iterator[tuple[str, str]]:
    for text in _texts(est.get("conditions", ())):
        if not text.isascii():
            yield "policy.text_look_alike", "a text in a condition has letters that are not ASCII"
            return


def _texts(node: Any) -> Iterable[str]:
    stack = [node]
    while stack:
        found = stack.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, dict):
            stack.extend(found.values())
        elif isinstance(found, list | tuple):
            stack.extend(found)


def _word_faults(est: JsonObject, schema: JsonObject) -> Iterator[tuple[str, str]]:
    """Ways into the context that lead nowhere: the validator lets ``context.input has recipent`` pass, which is never true."""
    asked = scope_actions(est["action"])
    named = asked if asked is not None and not asked & set(GROUPS) else None
    contexts = [
        action["appliesTo"]["context"]
        for name, action in schema["actions"].items()
        if "appliesTo" in action and (named is None or name in named)
    ]
    for way in sorted(context_reads(est)):
        if not any(_leads(context, way, schema["commonTypes"]) for context in contexts):
            yield "policy.word_unknown", f"context.{'.'.join(way)} is never there for these actions"


def _leads(kind: JsonObject, way: tuple[str, ...], types: JsonObject) -> bool:
    for name in way:
        kind = types.get(kind["type"], kind)
        if kind["type"] != "Record":
            return bool(kind["type"] == "Entity")  # its attributes are the validator's business
        if name not in kind["attributes"]:
            return False
        kind = kind["attributes"][name]
    return True
