"""The policies in force for one tenant, ready to be asked: parsed once, named by a hash, narrowed to what an action can meet.

Evaluation looks at every policy of a set, so an action is decided with those whose scope can match it. Leaving out the others
changes no answer: a scope that does not match is never evaluated further and cannot fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from policy.builtin import POLICY_SET_HASH as BUILTIN_HASH
from policy.cedar import (
    CedarAnswer,
    CedarRequest,
    Entities,
    PolicySet,
    Schema,
    decide,
)
from policy.hashes import sha256_of
from policy.rules import Rule
from policy.schema import SUBMIT, cedar_schema, group_of, groups_above, input_type


@dataclass(frozen=True)
class Words:
    """The vocabulary of one catalog: its schema and what follows from it. Built once per catalog version."""

    document: JsonObject
    schema: Schema
    hash: str
    inputs: Mapping[str, JsonObject]
    actions: Mapping[str, frozenset[str]]
    """Each action with itself and every group it is in."""

    agents: frozenset[str]

    @classmethod
    def of(cls, capabilities: Iterable[Capability]) -> Words:
        """The vocabulary of these capabilities. Raises ``CedarError("policy.schema_invalid")``."""
        known = tuple(capabilities)
        document = cedar_schema(known)
        actions = {one.name: frozenset((one.name, *groups_above(group_of(one)))) for one in known}
        return cls(
            document=document,
            schema=Schema(document),
            hash=sha256_of(document),
            inputs={one.name: input_type(one) for one in known},
            actions={**actions, SUBMIT: frozenset({SUBMIT})},
            agents=frozenset(agent_id(one) for one in known),
        )


def agent_id(capability: Capability) -> str:
    """The id of the agent that carries a capability out, in its region."""
    return f"{capability.endpoint}--{capability.region}"


@dataclass(frozen=True)
class Slice:
    """The policies that can apply to an action: parsed together, and those of them that look at arguments."""

    policies: PolicySet
    on_inputs: tuple[Rule, ...]


@dataclass(frozen=True)
class Book:
    """The rules of the platform and of one tenant, by id. ``hash`` names them, with the built-in rules, in evidence."""

    rules: Mapping[str, Rule]
    hash: str
    _slices: dict[frozenset[str], Slice] = field(default_factory=dict, repr=False)
    _sets: dict[frozenset[str], PolicySet] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> Book:
        """A book of these rules, whose ids are unique."""
        by_id = {rule.id: rule for rule in rules}
        name = sha256_of({"builtin": BUILTIN_HASH, "policies": {key: rule.est for key, rule in by_id.items()}})
        return cls(by_id, name)

    def slice_for(self, actions: frozenset[str]) -> Slice:
        """The policies that can apply to an action, which is given with every group it is in."""
        found = self._slices.get(actions)
        if found is None:
            rules = {rule.id: rule for rule in self.rules.values() if rule.applies_to(actions)}
            ids = frozenset(rules)
            if ids not in self._sets:
                self._sets[ids] = PolicySet({rule_id: rule.est for rule_id, rule in rules.items()})
            found = Slice(self._sets[ids], tuple(rule for rule in rules.values() if rule.inputs != frozenset()))
            self._slices[actions] = found
        return found

    def ask(
        self, requests: Sequence[CedarRequest], entities: Entities, words: Words, *, checked: bool = True
    ) -> list[CedarAnswer]:
        """Answer each request, in order; requests that meet the same policies are asked together.

        ``checked`` holds every request against the schema, which takes as long as answering it. Only an early answer may do
        without: one that is asked again, checked, before anything happens.
        """
        schema = words.schema if checked else None
        batches: dict[int, tuple[PolicySet, list[int]]] = {}
        for place, request in enumerate(requests):
            policies = self.slice_for(words.actions.get(request.action.id, frozenset({request.action.id}))).policies
            batches.setdefault(id(policies), (policies, []))[1].append(place)
        answers: dict[int, CedarAnswer] = {}
        for policies, places in batches.values():
            found = decide([requests[place] for place in places], policies, entities, schema)
            answers.update(zip(places, found, strict=True))
        return [answers[place] for place in range(len(requests))]
