"""The plan language as models: what a plan may say, before anybody asks whether it makes sense.

Structure only. Whether steps exist, types fit, bounds hold is ``engine.plan.check``; values with ``$ref``, ``$template`` and
``$literal`` stay plain JSON here and are read by ``engine.plan.expressions``. Nothing is coerced: ``"63"`` is not an integer
and ``true`` is not 1.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from engine.domain.base import JsonObject, JsonValue
from engine.domain.errors import LivoaError
from engine.domain.ids import UNDO_SUFFIX, WireId, is_wire_id, undo_id
from engine.domain.skeleton import OnFailure, StepKind
from engine.domain.tenant import PLATFORM_MAX_ITEMS, PLATFORM_MAX_STEPS

SCHEMA_VERSION: Literal["1.0"] = "1.0"
MAX_WAIT_S = 30 * 86_400
MAX_TEXT_CHARS = 20_000
MAX_ATTEMPTS = 10

WhenOp = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "contains", "exists"]


class _PlanModel(BaseModel):
    """Frozen, closed and strict. Arrays become tuples, which strict mode would refuse, hence ``Strict(False)`` on them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=False)


class Retry(_PlanModel):
    """How often and how soon to try again. Pauses in seconds: ``min(backoff_s * factor ** n, max_backoff_s)``."""

    max_attempts: int = Field(default=3, ge=1, le=MAX_ATTEMPTS)
    backoff_s: float = Field(default=1.0, ge=0, le=3_600)
    factor: float = Field(default=2.0, ge=1, le=10)
    max_backoff_s: float = Field(default=60.0, ge=0, le=86_400)


class When(_PlanModel):
    """A condition. ``left`` and ``right`` are values (a literal, a reference, a template).

    ``exists`` takes no ``right`` and asks whether the reference in ``left`` leads anywhere. ``in``: left is an element of the
    array right. ``contains``: the array left has the element right, or the text left has the text right in it.
    """

    left: JsonValue
    op: WhenOp
    right: JsonValue = None

    @model_validator(mode="after")
    def _right_fits_op(self) -> When:
        if ("right" in self.model_fields_set) == (self.op == "exists"):
            raise ValueError("'exists' takes no right side; every other operator needs one")
        return self


class Wait(_PlanModel):
    """A pause: ``until`` an instant (RFC 3339 with offset) or ``for_s`` seconds. Each may be a literal or a reference."""

    until: JsonValue = None
    for_s: JsonValue = None

    @model_validator(mode="after")
    def _one_of(self) -> Wait:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of 'until' and 'for_s'")
        return self


class Approval(_PlanModel):
    """A question to a human, answered by somebody with the right role before the dependants go on."""

    question: str = Field(min_length=1, max_length=2_000)
    timeout_s: float = Field(default=86_400, gt=0, le=MAX_WAIT_S)


class Call(_PlanModel):
    """A capability and its inputs."""

    capability: str = Field(min_length=1, max_length=100)
    inputs: JsonObject = Field(default_factory=dict)


class Step(_PlanModel):
    """One node of the task graph: a capability call (once, or once per element with ``for_each``), a wait or an approval.

    ``needs`` are edges in addition to those that references make. ``for_each`` is an array or a reference to one;
    ``max_items`` caps it, ``concurrency`` says how many items run at once. ``timeout_s`` is per attempt.
    """

    id: WireId
    capability: str | None = Field(default=None, min_length=1, max_length=100)
    inputs: JsonObject = Field(default_factory=dict)
    needs: Annotated[tuple[WireId, ...], Strict(False)] = Field(default=(), max_length=PLATFORM_MAX_STEPS)
    when: When | None = None
    for_each: JsonValue = None
    max_items: int | None = Field(default=None, ge=1, le=PLATFORM_MAX_ITEMS)
    concurrency: int = Field(default=20, ge=1, le=64)
    wait: Wait | None = None
    approval: Approval | None = None
    timeout_s: float | None = Field(default=None, gt=0, le=86_400)
    retry: Retry | None = None
    on_failure: OnFailure = "fail"
    optional: bool = False
    cache: bool = False
    compensate_with: Call | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        if sum(part is not None for part in (self.capability, self.wait, self.approval)) != 1:
            raise ValueError("a step is exactly one of 'capability', 'wait' and 'approval'")
        if self.id.endswith(UNDO_SUFFIX):
            raise ValueError(f"ids that end with {UNDO_SUFFIX} name the undoing of a step")
        if self.compensate_with is not None and not is_wire_id(undo_id(self.id)):
            raise ValueError("the id of a step that can be undone is shorter, by the length of '.undo'")
        if self.capability is None:
            extra = _ONLY_WITH_CAPABILITY & self.model_fields_set
            if extra:
                raise ValueError(f"only a capability call may have {', '.join(sorted(extra))}")
        if not self.is_map and self.model_fields_set & {"max_items", "concurrency"}:
            raise ValueError("'max_items' and 'concurrency' belong to 'for_each'")
        return self

    @property
    def is_map(self) -> bool:
        """True when the step runs once per element of ``for_each``."""
        return "for_each" in self.model_fields_set

    @property
    def kind(self) -> StepKind:
        """The kind of the step as the scheduler sees it."""
        if self.wait is not None:
            return "wait"
        if self.approval is not None:
            return "approval"
        return "map" if self.is_map else "call"


_ONLY_WITH_CAPABILITY = frozenset(
    {"inputs", "for_each", "max_items", "concurrency", "retry", "cache", "compensate_with", "timeout_s"}
)


class AnswerSpec(_PlanModel):
    """What the answer is composed from: the steps whose outputs it uses, and what to make of them."""

    uses: Annotated[tuple[WireId, ...], Strict(False)] = Field(default=(), max_length=PLATFORM_MAX_STEPS)
    instructions: str = Field(default="", max_length=MAX_TEXT_CHARS)


class PlanHead(_PlanModel):
    """Everything of a plan but its steps."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    goal: str = Field(min_length=1, max_length=MAX_TEXT_CHARS)
    rationale: str = Field(default="", max_length=MAX_TEXT_CHARS)
    answer: AnswerSpec = AnswerSpec()


class Plan(PlanHead):
    """A task graph with its goal and the answer it leads to. Without ``answer.uses`` the steps nobody needs make it up."""

    steps: Annotated[tuple[Step, ...], Strict(False)] = Field(min_length=1, max_length=PLATFORM_MAX_STEPS)

    def step(self, step_id: str) -> Step | None:
        """The step with this id, or None."""
        return next((step for step in self.steps if step.id == step_id), None)


def plan_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a plan document. Necessary, not sufficient: the checks say more than a schema can."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:livoa:schema:plan:1.0",
        **Plan.model_json_schema(),
    }


def parse_checked_plan(document: JsonValue) -> Plan:
    """The plan in a document that ``check_plan`` accepted earlier (its normal form, from the payload store).

    Structure is read strictly again; the other checks are not repeated, because their result is bound to the plan's hash.
    Raises ``LivoaError("plan.corrupt", status=500)`` when it is no plan.
    """
    try:
        return Plan.model_validate(document)
    except ValidationError as error:
        message = f"The stored plan does not have the shape of a plan ({error.error_count()} places)."
        raise LivoaError("plan.corrupt", message, status=500) from None
