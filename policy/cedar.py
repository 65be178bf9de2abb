"""The one door to Cedar: everything else in this repository speaks of requests, policies and answers in these types.

It exists because the library, used directly, can say yes when it should not: a forbid that fails while it is evaluated is
skipped, an entity that is missing makes conditions fail, a request that does not fit the schema has a third outcome, ids of
policies read from text are positions, and text nested deeply enough ends the process. Here, all of that is a refusal, and
each refusal has a code. This module decides nothing by itself: what to ask, and what a refusal means, is for the callers.

Facts about the library are those of cedarpy 4.12.2, observed by the tests of this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from engine.domain.base import JsonObject, JsonValue
from policy.text_guard import guard_text

if TYPE_CHECKING:
    import cedarpy

MAX_SET_POLICIES = 2_000
"""Most policies in one set. An evaluation looks at each, so this bounds its time."""

MAX_ERRORS = 5

_WRITE = json.JSONEncoder(separators=(",", ":")).encode

_KEPT_ENTITIES = 256
_KEPT_ENTITIES_CHARS = 32 * 1024
"""Entities of longer texts are read each time: together, kept ones hold some 8 MB of text at the most."""

ERROR = "policy.error"
INVALID_REQUEST = "policy.request_invalid"
MISSING_ENTITY = "policy.entity_missing"
NO_PERMIT = "policy.no_permit"
FORBIDDEN = "policy.forbidden"


class CedarError(ValueError):
    """Policies, a schema or entities that cannot be used. ``code`` is stable; the words name the place."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Uid:
    """An entity: its type with namespace (``Livoa::User``) and its id, which may be any text."""

    type: str
    id: str

    def wire(self) -> JsonObject:
        """The structured form, which needs no escaping."""
        return {"type": self.type, "id": self.id}


@dataclass(frozen=True)
class CedarRequest:
    """One question. ``needs`` are entities, beyond principal and resource, without which it must not be answered."""

    principal: Uid
    action: Uid
    resource: Uid
    context: JsonObject
    needs: tuple[Uid, ...] = ()

    @cached_property
    def context_text(self) -> str:
        """The context as JSON, written once for the question, for telling equal questions, and for the hash of the facts."""
        return _WRITE(self.context)


@dataclass(frozen=True, slots=True)
class CedarAnswer:
    """``allow`` only for a clean allow. ``ids`` are the policies that determined it, sorted: all satisfied forbids, or all
    satisfied permits. ``code`` is empty for an allow. ``errors`` are the library's words, few and short."""

    outcome: Literal["allow", "deny"]
    ids: tuple[str, ...] = ()
    code: str = ""
    errors: tuple[str, ...] = ()


class Schema:
    """A parsed schema. Build one per catalog version; parsing costs milliseconds."""

    def __init__(self, document: Mapping[str, JsonValue] | str) -> None:
        """From the JSON form (a mapping) or Cedar's own text. Raises ``CedarError("policy.schema_invalid")``."""
        try:
            if isinstance(document, str):
                self.handle: cedarpy.Schema = _cedar().Schema.from_str(document)
            else:
                self.handle = _cedar().Schema.from_json_str(json.dumps(document))
        except ValueError as error:
            raise CedarError("policy.schema_invalid", _short(error)) from None

    def text(self) -> str:
        """The schema in Cedar's own syntax, for people."""
        return str(self.handle)


class Entities:
    """Parsed entities, checked against the schema when one is given, and the uids that are among them."""

    def __init__(self, entities: Sequence[JsonObject], schema: Schema | None) -> None:
        """From the JSON form. Raises ``CedarError("policy.entities_invalid")``."""
        try:
            text = json.dumps(entities)
            read = _entities_of if len(text) <= _KEPT_ENTITIES_CHARS else _entities_of.__wrapped__
            self.handle: cedarpy.Entities = read(text, schema)
        except (ValueError, TypeError) as error:
            raise CedarError("policy.entities_invalid", _short(error)) from None
        self._known = frozenset(_uid(entity) for entity in entities)

    def missing(self, uids: Iterable[Uid]) -> tuple[Uid, ...]:
        """Those of ``uids`` that are not among the entities."""
        return tuple(uid for uid in uids if (uid.type, uid.id) not in self._known)


@lru_cache(maxsize=_KEPT_ENTITIES)
def _entities_of(text: str, schema: Schema | None) -> cedarpy.Entities:
    """The steps of a run say the same of caller, tenant, plan and agent. What was read is kept by all that it was read from, so
    it cannot be stale: whatever changes of them is another text, another catalog another schema."""
    read: cedarpy.Entities = _cedar().Entities.from_json_str(text, schema.handle if schema is not None else None)
    return read


class PolicySet:
    """Parsed policies under ids of our own choosing, which come back in answers. Built from the JSON form only."""

    def __init__(self, policies: Mapping[str, JsonObject]) -> None:
        """From policies in the JSON form by id. Raises ``CedarError("policy.set_invalid")``."""
        if len(policies) > MAX_SET_POLICIES:
            raise CedarError("policy.set_too_large", f"a policy set has at most {MAX_SET_POLICIES} policies")
        document = {"templates": {}, "staticPolicies": dict(policies), "templateLinks": []}
        try:
            self.handle: cedarpy.PolicySet = _cedar().PolicySet.from_json_str(json.dumps(document))
        except (ValueError, TypeError, RecursionError) as error:
            raise CedarError("policy.set_invalid", _short(error)) from None
        if len(self.handle) != len(policies):
            raise CedarError("policy.set_invalid", "the set lost policies while it was read")
        self.ids = frozenset(policies)


def decide(
    requests: Sequence[CedarRequest], policies: PolicySet, entities: Entities, schema: Schema | None
) -> list[CedarAnswer]:
    """Answer each request, in order. Never raises to say no.

    ``schema`` is None only where there is none to check requests against (the public test data); the engine always has one.
    """
    answers: list[CedarAnswer | None] = [_missing(request, entities) for request in requests]
    open_places = [place for place, answer in enumerate(answers) if answer is None]
    if open_places:
        # Large plans repeat themselves; the same question has the same answer, and most of its price is reading it.
        keys = [_key(requests[place]) for place in open_places]
        distinct = {key: requests[place] for key, place in zip(keys, open_places, strict=True)}
        found = _ask(list(distinct.values()), policies, entities, schema)
        by_key = dict(zip(distinct, found, strict=True))
        for key, place in zip(keys, open_places, strict=True):
            answers[place] = by_key[key]
    return [answer if answer is not None else CedarAnswer("deny", code=ERROR) for answer in answers]


def _key(request: CedarRequest) -> tuple[Uid, Uid, Uid, str]:
    return request.principal, request.action, request.resource, request.context_text


def _missing(request: CedarRequest, entities: Entities) -> CedarAnswer | None:
    missing = entities.missing((request.principal, request.resource, *request.needs))
    if not missing:
        return None
    words = tuple(f"{uid.type} is not known" for uid in missing[:MAX_ERRORS])
    return CedarAnswer("deny", code=MISSING_ENTITY, errors=words)


def _ask(
    requests: Sequence[CedarRequest], policies: PolicySet, entities: Entities, schema: Schema | None
) -> list[CedarAnswer]:
    # No correlation id: the library raises TypeError for one that is None, and order is kept anyway.
    try:
        wire = [
            {
                "principal": request.principal.wire(),
                "action": request.action.wire(),
                "resource": request.resource.wire(),
                "context": request.context_text,
            }
            for request in requests
        ]
        results = _cedar().is_authorized_batch(
            wire, policies.handle, entities.handle, schema.handle if schema is not None else None
        )
    except Exception as error:  # a refusal of the library, whatever its type, is a refusal of ours
        return [CedarAnswer("deny", code=ERROR, errors=(_short(error),)) for _ in requests]
    if len(results) != len(requests):
        return [CedarAnswer("deny", code=ERROR, errors=("an answer is missing",)) for _ in requests]
    return [_read(result, policies) for result in results]


def _read(result: cedarpy.AuthzResult, policies: PolicySet) -> CedarAnswer:
    decision = result.decision.value
    errors = tuple(_short(error) for error in result.diagnostics.errors[:MAX_ERRORS])
    if decision == "NoDecision":
        return CedarAnswer("deny", code=INVALID_REQUEST, errors=errors)
    ids = tuple(sorted(result.diagnostics.reasons))
    if errors:
        # A policy that failed was left out of the decision; had it been a forbid, the answer would be another.
        return CedarAnswer("deny", ids if decision == "Deny" else (), ERROR, errors)
    if not policies.ids.issuperset(ids):
        return CedarAnswer("deny", code=ERROR, errors=("the answer names a policy that is not in the set",))
    if decision == "Allow" and ids:
        return CedarAnswer("allow", ids)
    if decision == "Deny" and ids:
        return CedarAnswer("deny", ids, FORBIDDEN)
    return CedarAnswer("deny", code=NO_PERMIT)


def policies_of(text: str) -> list[JsonObject]:
    """Policies written as text, in the JSON form and in the order of the text.

    The text is bounded before the parser sees it (``policy.text_guard``). Raises ``CedarError`` with the guard's code,
    ``policy.syntax``, or ``policy.template``: templates are not used here.
    """
    found = guard_text(text)
    if found is not None:
        raise CedarError(found.code, found.message)
    try:
        document = json.loads(_cedar().policies_to_json_str(text))
    except (ValueError, RecursionError) as error:
        raise CedarError("policy.syntax", _short(error)) from None
    if document.get("templates") or document.get("templateLinks"):
        raise CedarError("policy.template", "templates (?principal, ?resource) are not used here")
    static = document["staticPolicies"]
    # Ids are positions; sorting them as text would put policy10 before policy2.
    return [static[key] for key in sorted(static, key=lambda key: int(key.removeprefix("policy")))]


def validation_errors(text: str, schema: Schema) -> list[tuple[int, str]]:
    """Where ``text`` does not fit the schema: (position of the policy, words). The text was accepted by ``policies_of``."""
    found = guard_text(text)
    if found is not None:
        raise CedarError(found.code, found.message)
    try:
        result = _cedar().validate_policies(text, schema.handle)
    except ValueError as error:
        raise CedarError("policy.syntax", _short(error)) from None
    if result.validation_passed:
        return []
    errors = [(_position(error.policy_id), _short(error.error)) for error in result.errors]
    return errors or [(0, "the policies do not fit the schema")]


@cache
@cache
def engine_version() -> str:
    """The version of the library, for evidence."""
    from importlib.metadata import version

    return f"cedarpy {version('cedarpy')}"


def _position(policy_id: str) -> int:
    digits = policy_id.removeprefix("policy")
    return int(digits) if digits.isdigit() else 0


def _uid(entity: JsonObject) -> tuple[str, str]:
    uid = entity["uid"]
    uid = uid.get("__entity", uid)
    return (str(uid["type"]), str(uid["id"]))


def _short(error: object) -> str:
    return " ".join(str(error).split())[:300]


@cache
def _cedar() -> ModuleType:
    import cedarpy  # 20 ms and 12 MB: whoever decides pays, not whoever indexes the app

    return cedarpy
