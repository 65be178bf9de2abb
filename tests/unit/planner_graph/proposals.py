"""Proposals as a model would emit them, for tests: short ways to write complete ones."""

from __future__ import annotations

import json
from typing import Any


def given(name: str, value: Any) -> dict[str, Any]:
    """A literal input."""
    return {"name": name, "kind": "literal", "value": json.dumps(value), "default": None}


def ref(name: str, value: str, default: Any = ...) -> dict[str, Any]:
    """A reference input."""
    encoded = None if default is ... else json.dumps(default)
    return {"name": name, "kind": "ref", "value": value, "default": encoded}


def template(name: str, value: str) -> dict[str, Any]:
    """A template input."""
    return {"name": name, "kind": "template", "value": value, "default": None}


def proposed(
    step_id: str, capability: str | None = "calc.double", *inputs: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    """A complete proposed step."""
    step = {
        "id": step_id,
        "capability": capability,
        "inputs": list(inputs),
        "needs": [],
        "when": None,
        "for_each": None,
        "wait": None,
        "approval": None,
        "timeout_s": None,
        "max_attempts": None,
        "on_failure": None,
        "optional": False,
        "undo_capability": None,
        "undo_inputs": [],
    }
    return step | fields


def proposal(*steps: dict[str, Any], uses: list[str] | None = None) -> dict[str, Any]:
    """A complete proposal."""
    answer = {"uses": uses if uses is not None else [steps[-1]["id"]], "instructions": "Say it."}
    return {"cannot": None, "goal": "test", "rationale": "because", "steps": list(steps), "answer": answer}
