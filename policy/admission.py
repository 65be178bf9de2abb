"""Letting policies in: from files of text to rules, or to everything that is wrong with them.

A tenant's text is parsed in a child process: the parser has ended processes before, and a child that dies is a refusal, while the
engine goes on. What comes back is the JSON form, whose reader has limits of its own; it is the only form decisions are made with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.errors import Violation
from engine.ports.policy import PolicyText
from policy.cedar import CedarError, PolicySet, Schema, policies_of, validation_errors
from policy.lint import MAX_LAYER_BYTES, Written, lint
from policy.rules import Layer, Rule, rule_of
from policy.text_guard import guard_text, policy_lines

CHILD_TIMEOUT_S = 20.0
MAX_CHILD_OUTPUT_BYTES = 32 * 1024 * 1024
_CHILD = "import json,sys; sys.path[:]=json.loads(sys.argv[1]); from policy.admission_child import main; main()"


@dataclass(frozen=True, slots=True)
class Admitted:
    """The rules of a layer, or why there are none: exactly one of the two is not empty, unless the layer is."""

    rules: tuple[Rule, ...]
    findings: tuple[Violation, ...] = ()


def admit(files: Sequence[PolicyText], layer: Layer, schema: JsonObject, agents: frozenset[str]) -> Admitted:
    """Parse, lint and check in this process: for the platform's own files, and inside the child."""
    found = list(_bounds(files))
    if found:
        return Admitted((), tuple(found))
    written: list[Written] = []
    parsed_schema = Schema(schema)
    for file in files:
        try:
            policies = policies_of(file.text)
            errors = validation_errors(file.text, parsed_schema) if policies else []
        except CedarError as error:
            found.append(Violation(code=error.code, pointer=f"{file.name}#L1", message=str(error)))
            continue
        lines = policy_lines(file.text)
        written.extend(Written(file.name, _line(lines, place), est) for place, est in enumerate(policies))
        for place, words in errors:
            pointer = f"{file.name}#L{_line(lines, place)}"
            found.append(Violation(code="policy.schema_mismatch", pointer=pointer, message=words))
    found.extend(lint(written, layer, agents, schema))
    if found:
        return Admitted((), tuple(found))
    return _loaded([one.est for one in written])


def admit_in_child(files: Sequence[PolicyText], layer: Layer, schema: JsonObject, agents: frozenset[str]) -> Admitted:
    """``admit`` in a process of its own, with limits on time and memory. A child that dies is a finding."""
    found = tuple(_bounds(files))
    if found:
        return Admitted((), found)
    task = {
        "files": [[file.name, file.text] for file in files],
        "layer": [layer.kind, layer.tenant_id],
        "schema": schema,
        "agents": sorted(agents),
    }
    try:
        # -I: nothing of the environment decides what the child loads; the path is handed over instead.
        done = subprocess.run(  # noqa: S603  # our own interpreter and code; the text goes to standard input
            [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path)],
            input=json.dumps(task).encode(),
            capture_output=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError):
        answer = None
    if not isinstance(answer, dict) or len(done.stdout) > MAX_CHILD_OUTPUT_BYTES:
        words = "the process that read the policies died or took too long"
        return Admitted((), (Violation(code="policy.admission_failed", pointer=files[0].name, message=words),))
    return _answered(answer)


def _answered(answer: Mapping[str, Any]) -> Admitted:
    findings = tuple(Violation.model_validate(one) for one in answer["findings"])
    return Admitted((), findings) if findings else _loaded(answer["policies"])


def _loaded(policies: Sequence[JsonObject]) -> Admitted:
    rules = tuple(rule_of(est) for est in policies)
    try:
        PolicySet({rule.id: rule.est for rule in rules})
    except CedarError as error:
        return Admitted((), (Violation(code=error.code, pointer="", message=str(error)),))
    return Admitted(rules)


def _bounds(files: Sequence[PolicyText]) -> list[Violation]:
    found = []
    for file in files:
        fault = guard_text(file.text)
        if fault is not None:
            found.append(Violation(code=fault.code, pointer=f"{file.name}#L{fault.line}", message=fault.message))
    if sum(len(file.text) for file in files) > MAX_LAYER_BYTES:
        words = f"the policies of a layer have at most {MAX_LAYER_BYTES} bytes"
        found.append(Violation(code="policy.too_large", pointer=files[0].name, message=words))
    return found


def _line(lines: Sequence[int], place: int) -> int:
    return lines[place] if place < len(lines) else 1
