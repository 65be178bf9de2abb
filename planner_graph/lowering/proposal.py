"""A proposal as models: what a planner model is asked to emit. Closed, strict, every field always there, nothing nested deep.

It differs from a plan where a provider's strict structured output cannot follow the plan language: inputs are a list of
``{name, kind, value, default}`` with JSON-encoded literals, and what a plan leaves out is null here. It is not a plan and is
never run, stored as one or shown as one.

The bounds are far above what a good proposal needs; they keep hostile ones cheap.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict

SCHEMA_NAME = "livoa_plan_proposal"
MAX_STEPS = 1_000
_MAX_INPUTS = 200
_MAX_NAMES = 1_000
_MAX_VALUE_CHARS = 100_000

_Name = Annotated[str, Field(max_length=300)]
_Value = Annotated[str, Field(max_length=_MAX_VALUE_CHARS)]
_Text = Annotated[str, Field(max_length=20_000)]
_Names = Annotated[tuple[_Name, ...], Strict(False), Field(max_length=_MAX_NAMES)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ProposedInput(_Closed):
    """One input of a call."""

    name: _Name = Field(description="Parameter name. A JSON Pointer such as /filter/from sets a part of an object.")
    kind: Literal["literal", "ref", "template"]
    value: _Value = Field(
        description=(
            'literal: the value as JSON text (text in quotes: "\\"gbp\\""). ref: run#/…, steps.<id>#/… or item#/…. '
            "template: text with references in braces: notes on {steps.a#/name}."
        )
    )
    default: _Value | None = Field(description="ref only: JSON text of the value to use when there is none; else null.")


class ProposedWhen(_Closed):
    """A condition under which a step runs."""

    left: _Name = Field(description="A reference.")
    op: Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "contains", "exists"]
    right_kind: Literal["none", "literal", "ref"] = Field(description="none goes with exists, and only with it.")
    right: _Value | None


class ProposedForEach(_Closed):
    """Run the step once per element of an array."""

    kind: Literal["literal", "ref"]
    value: _Value
    max_items: int | None
    concurrency: int | None


class ProposedWait(_Closed):
    """A pause instead of a call."""

    mode: Literal["for_s", "until"]
    kind: Literal["literal", "ref"]
    value: _Value


class ProposedApproval(_Closed):
    """A question to a person instead of a call."""

    question: _Text
    timeout_s: float | None


class ProposedStep(_Closed):
    """One step: exactly one of ``capability``, ``wait`` and ``approval`` is not null."""

    id: _Name = Field(description="Short, unique: letters, digits, dots, dashes, underscores.")
    capability: _Name | None
    inputs: Annotated[tuple[ProposedInput, ...], Strict(False), Field(max_length=_MAX_INPUTS)]
    needs: _Names = Field(description="Only steps that must come first without this step using their output.")
    when: ProposedWhen | None
    for_each: ProposedForEach | None
    wait: ProposedWait | None
    approval: ProposedApproval | None
    timeout_s: float | None
    max_attempts: int | None
    on_failure: Literal["fail", "skip", "fallback", "repair"] | None
    optional: bool
    undo_capability: _Name | None = Field(description="How the step is undone, where its capability must be undoable.")
    undo_inputs: Annotated[tuple[ProposedInput, ...], Strict(False), Field(max_length=_MAX_INPUTS)]


class ProposedAnswer(_Closed):
    """What the answer is made from."""

    uses: _Names
    instructions: _Text


class Proposal(_Closed):
    """A whole proposal, or the admission that there is none: then ``cannot`` says why and there are no steps."""

    cannot: Literal["out_of_scope", "missing_values"] | None
    goal: _Text
    rationale: _Text
    steps: Annotated[tuple[ProposedStep, ...], Strict(False), Field(max_length=MAX_STEPS)]
    answer: ProposedAnswer
