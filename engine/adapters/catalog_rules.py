"""What makes a catalog usable, whatever it was read from: checks over all manifests and playbooks together, and its version.

Findings stop a catalog from loading; remarks are things its owner should look at (a parameter without a class counts as a
selector, the strictest class, which is safe but seldom meant). Plans inside playbooks are checked when they are filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.errors import Violation
from engine.domain.meta_schema import DIALECT, schema_validator
from engine.domain.playbook import Playbook
from engine.domain.strict_json import escape_token
from engine.evidence import canonical_sha256


def catalog_version(capabilities: Mapping[str, Capability], playbooks: Mapping[str, Playbook]) -> str:
    """SHA-256 over the canonical form of every manifest and playbook."""
    return canonical_sha256(
        {
            "capabilities": {name: manifest.model_dump(mode="json") for name, manifest in capabilities.items()},
            "playbooks": {name: playbook.model_dump(mode="json") for name, playbook in playbooks.items()},
        }
    )


def catalog_findings(
    capabilities: Mapping[str, Capability], playbooks: Mapping[str, Playbook]
) -> tuple[Violation, ...]:
    """Everything that keeps the catalog from being used. Pointers are ``{page}#{pointer into it}``."""
    if not capabilities:
        return (Violation(code="catalog.empty", pointer="", message="the catalog holds no capability"),)
    found: list[Violation] = []
    for manifest in capabilities.values():
        found.extend(capability_findings(manifest))
        if manifest.inverse is not None and manifest.inverse.capability not in capabilities:
            message = f"the inverse {manifest.inverse.capability} is not in the catalog"
            found.append(_at(_page(manifest), "/inverse/capability", "catalog.capability_unknown", message))
        if manifest.fallback is not None:
            found.extend(_fallback_findings(manifest, capabilities.get(manifest.fallback)))
    for playbook in playbooks.values():
        found.extend(_playbook_findings(playbook, capabilities))
    return tuple(found)


def _fallback_findings(manifest: Capability, fallback: Capability | None) -> Iterator[Violation]:
    """A plan is checked and vetted with the schemas and labels of what it names, so a fallback may not be worse in any."""
    place = _page(manifest), "/fallback"
    if fallback is None or fallback.name == manifest.name:
        message = f"the fallback {manifest.fallback} is not another capability of the catalog"
        yield _at(*place, "catalog.capability_unknown", message)
        return
    own, other = manifest.output_label, fallback.output_label
    faults = {
        "the input schemas differ": manifest.input_schema != fallback.input_schema,
        "the output schemas differ": manifest.output_schema != fallback.output_schema,
        "one of them has effects, and nobody knows whether the first call had its own": not (
            {manifest.side_effect, fallback.side_effect} <= {"none", "read"}
        ),
        "its outputs are to be trusted less": other.integrity < own.integrity,
        "its outputs are more confidential": other.confidentiality > own.confidentiality or (other.pii and not own.pii),
    }
    for message in (words for words, wrong in faults.items() if wrong):
        yield _at(*place, "catalog.fallback_unfit", f"{fallback.name} cannot stand in for {manifest.name}: {message}")


def capability_findings(manifest: Capability) -> Iterator[Violation]:
    """What is wrong with one manifest by itself: its schemas and its parameter classes."""
    yield from _schema_findings(_page(manifest), "/input_schema", manifest.input_schema)
    yield from _schema_findings(_page(manifest), "/output_schema", manifest.output_schema)
    if manifest.input_schema.get("type") != "object":
        message = "inputs are named, so the input schema must say type: object"
        yield _at(_page(manifest), "/input_schema/type", "catalog.schema_invalid", message)
    declared = _properties(manifest.input_schema)
    for name in manifest.parameters:
        if name not in declared:
            message = f"{name} has a class but is no property of the input schema"
            yield _at(_page(manifest), f"/parameters/{escape_token(name)}", "catalog.parameter_unknown", message)


def catalog_remarks(capabilities: Mapping[str, Capability]) -> tuple[Violation, ...]:
    """Input parameters without a declared class; they count as selectors."""
    return tuple(
        _at(
            _page(manifest),
            f"/input_schema/properties/{escape_token(name)}",
            "catalog.parameter_unclassified",
            f"{name} has no class and counts as a selector; declare it under parameters",
        )
        for manifest in capabilities.values()
        for name in _properties(manifest.input_schema)
        if name not in manifest.parameters
    )


def _properties(schema: JsonObject) -> JsonObject:
    properties = schema.get("properties", {})
    return properties if isinstance(properties, dict) else {}


def _schema_findings(page: str, pointer: str, schema: JsonObject) -> Iterator[Violation]:
    for error in schema_validator().iter_errors(schema):
        place = pointer + "".join(f"/{escape_token(str(token))}" for token in error.absolute_path)
        yield _at(page, place, "catalog.schema_invalid", f"no JSON Schema 2020-12: {error.message[:300]}")
    if schema.get("$schema", DIALECT) != DIALECT:
        yield _at(page, f"{pointer}/$schema", "catalog.schema_invalid", f"the dialect must be {DIALECT}")
    for place, reference in _references(schema, pointer):
        if not reference.startswith("#"):
            yield _at(page, place, "catalog.schema_remote", "a schema may refer to itself only; nothing is fetched")


def _references(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, member in value.items():
            place = f"{pointer}/{escape_token(str(key))}"
            if key in ("$ref", "$dynamicRef") and isinstance(member, str):
                yield place, member
            yield from _references(member, place)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _references(member, f"{pointer}/{index}")


def _playbook_findings(playbook: Playbook, capabilities: Mapping[str, Capability]) -> Iterator[Violation]:
    names = [parameter.name for parameter in playbook.parameters]
    for index, parameter in enumerate(playbook.parameters):
        place = f"/parameters/{index}"
        if names.index(parameter.name) != index:
            yield _at(
                _page(playbook), f"{place}/name", "catalog.parameter_repeated", f"{parameter.name} is declared twice"
            )
        if parameter.source in ("choice", "second_choice", "choices") and not parameter.choices:
            yield _at(_page(playbook), f"{place}/choices", "catalog.choices_missing", "a choice needs choices")
        for word in sorted(set(parameter.synonyms) - set(parameter.choices)):
            message = f"{word} has synonyms but is not one of the choices"
            yield _at(_page(playbook), f"{place}/synonyms/{escape_token(word)}", "catalog.choice_unknown", message)
    for place, name in _parameter_uses(playbook.plan, "/plan"):
        if name not in names:
            yield _at(_page(playbook), place, "catalog.parameter_unknown", f"{name} is not a parameter of the playbook")
    for place, name in _capability_uses(playbook.plan):
        if name not in capabilities:
            yield _at(_page(playbook), place, "catalog.capability_unknown", f"{name} is not in the catalog")


def _parameter_uses(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if set(value) == {"$param"}:
            yield f"{pointer}/$param", str(value["$param"])
            return
        for key, member in value.items():
            yield from _parameter_uses(member, f"{pointer}/{escape_token(str(key))}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _parameter_uses(member, f"{pointer}/{index}")


def _capability_uses(plan: JsonObject) -> Iterator[tuple[str, str]]:
    steps = plan.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        name = step.get("capability") if isinstance(step, dict) else None
        if isinstance(name, str):
            yield f"/plan/steps/{index}/capability", name


def _at(page: str, pointer: str, code: str, message: str) -> Violation:
    return Violation(code=code, pointer=f"{page}#{pointer}", message=message)


def _page(thing: Capability | Playbook) -> str:
    return f"{'capabilities' if isinstance(thing, Capability) else 'playbooks'}/{thing.name}.yaml"
