"""Lowering: from a proposal to a document in the plan language, or to the list of everything that cannot be read.

The document says what the proposal says and nothing more; whether it makes sense is for the checks. ``Lowered.pointer`` leads
the findings of those checks back to the places of the proposal, because that is what the model wrote and can mend.

Codes: ``proposal.schema``, ``proposal.literal``, ``proposal.reference``, ``proposal.template``, ``proposal.input_name``,
``proposal.duplicate_input``, ``proposal.when``, ``proposal.empty``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ValidationError

from engine.domain.base import JsonObject, JsonValue
from engine.domain.errors import Violation
from engine.domain.strict_json import Place, pointer_of
from engine.plan.pointers import array_index, parse_pointer
from planner_graph.lowering.inputs import InputBox, read_input
from planner_graph.lowering.proposal import Proposal, ProposedInput, ProposedStep, ProposedWhen
from planner_graph.lowering.values import Faulty, Read, literal, reference

MAX_VIOLATIONS = 50

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lowered:
    """A document for the checks, and where each part of it stands in the proposal.

    ``kept`` counts steps at the head of the document that the proposal did not write: the finished ones of an earlier plan.
    """

    document: JsonObject
    origins: dict[Tokens, Tokens] = field(repr=False)
    kept: int = 0

    def pointer(self, plan_pointer: str) -> str:
        """The place in the proposal that a pointer into the document speaks of: the nearest part that has one."""
        tokens = parse_pointer(plan_pointer) or ()
        if self.kept and tokens[:1] == ("steps",) and (index := array_index((*tokens, "", "")[1])) is not None:
            if index < self.kept:
                return ""
            tokens = ("steps", str(index - self.kept), *tokens[2:])
        for length in range(len(tokens), 0, -1):
            if tokens[:length] in self.origins:
                return _pointer(self.origins[tokens[:length]])
        return _pointer(tokens[:3])

    def told(self, violations: Iterable[Violation]) -> tuple[Violation, ...]:
        """The same findings, pointing into the proposal."""
        return tuple(found.model_copy(update={"pointer": self.pointer(found.pointer)}) for found in violations)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A proposal that cannot be read. Pointers lead into the proposal; no message repeats it."""

    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class Declined:
    """The model says that it cannot: the request is out of scope, or a value is missing."""

    why: Literal["out_of_scope", "missing_values"]


def lower(value: JsonValue) -> Lowered | Rejected | Declined:
    """Lower what a model emitted. Never raises for anything in ``value``; time and memory are linear in its size."""
    try:
        proposal = Proposal.model_validate(value)
    except ValidationError as err:
        return Rejected(_shape_violations(err))
    except RecursionError:
        return Rejected((Violation(code="proposal.schema", pointer="", message="nested too deep"),))
    if proposal.cannot is not None and not proposal.steps:
        return Declined(proposal.cannot)
    return _Lowering().run(proposal)


def _shape_violations(err: ValidationError) -> tuple[Violation, ...]:
    found = err.errors(include_url=False, include_input=False, include_context=False)[:MAX_VIOLATIONS]
    return tuple(
        Violation(code="proposal.schema", pointer=_pointer(tuple(map(str, entry["loc"]))), message=entry["msg"])
        for entry in found
    )


def _pointer(tokens: Tokens) -> str:
    place: Place = None
    for token in tokens:
        place = (place, token)
    return pointer_of(place)


class _Lowering:
    """One lowering: collects violations and origins on the way."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self._origins: dict[Tokens, Tokens] = {}

    def run(self, proposal: Proposal) -> Lowered | Rejected:
        if proposal.cannot is not None:
            self._fault("proposal.schema", ("cannot",), "a proposal with steps has no 'cannot'")
        if not proposal.steps:
            self._fault("proposal.empty", ("steps",), "a proposal has at least one step")
        steps = [self._step(step, ("steps", str(index))) for index, step in enumerate(proposal.steps)]
        if self._violations:
            return Rejected(tuple(self._violations[:MAX_VIOLATIONS]))
        answer: JsonObject = {"instructions": proposal.answer.instructions}
        if proposal.answer.uses:
            answer["uses"] = list(proposal.answer.uses)
        document = {"goal": proposal.goal, "rationale": proposal.rationale, "steps": steps, "answer": answer}
        return Lowered(document, self._origins)

    def _fault(self, code: str, place: Tokens, message: str) -> None:
        self._violations.append(Violation(code=code, pointer=_pointer(place), message=message))

    def _value(self, read: Read | Faulty, place: Tokens) -> JsonValue:
        if isinstance(read, Faulty):
            self._fault(read.code, place, read.message)
            return None
        return read.value

    def _step(self, step: ProposedStep, place: Tokens) -> JsonObject:
        lowered: JsonObject = {"id": step.id}
        if step.capability is not None:
            lowered["capability"] = step.capability
        if step.inputs:
            lowered["inputs"] = self._inputs(step.inputs, place, "inputs", (*place, "inputs"))
        if step.needs:
            lowered["needs"] = list(step.needs)
        if step.when is not None:
            lowered["when"] = self._when(step.when, (*place, "when"))
        self._built_in(step, lowered, place)
        for name in ("timeout_s", "on_failure"):
            if getattr(step, name) is not None:
                lowered[name] = getattr(step, name)
        if step.max_attempts is not None:
            lowered["retry"] = {"max_attempts": step.max_attempts}
            self._origins[*place, "retry"] = (*place, "max_attempts")
        if step.optional:
            lowered["optional"] = True
        self._undo(step, lowered, place)
        return lowered

    def _built_in(self, step: ProposedStep, lowered: JsonObject, place: Tokens) -> None:
        """What the plan language has beside calls: ``for_each``, ``wait`` and ``approval``."""
        if step.for_each is not None:
            each, at = step.for_each, (*place, "for_each")
            read = reference(each.value) if each.kind == "ref" else literal(each.value)
            lowered["for_each"] = self._value(read, (*at, "value"))
            self._origins[at] = (*at, "value")
            for name in ("max_items", "concurrency"):
                if getattr(each, name) is not None:
                    lowered[name] = getattr(each, name)
                    self._origins[*place, name] = (*at, name)
        if step.wait is not None:
            at = (*place, "wait")
            read = reference(step.wait.value) if step.wait.kind == "ref" else literal(step.wait.value)
            lowered["wait"] = {step.wait.mode: self._value(read, (*at, "value"))}
            self._origins[*at, step.wait.mode] = (*at, "value")
        if step.approval is not None:
            timeout_s = step.approval.timeout_s
            lowered["approval"] = {"question": step.approval.question} | (
                {} if timeout_s is None else {"timeout_s": timeout_s}
            )
            for name in lowered["approval"]:
                self._origins[*place, "approval", name] = (*place, "approval", name)

    def _undo(self, step: ProposedStep, lowered: JsonObject, place: Tokens) -> None:
        at, inputs_at = (*place, "compensate_with"), (*place, "undo_inputs")
        if step.undo_capability is None:
            if step.undo_inputs:
                self._fault("proposal.schema", inputs_at, "inputs to undo with need an 'undo_capability'")
            return
        inputs = self._inputs(step.undo_inputs, at, "inputs", inputs_at)
        lowered["compensate_with"] = {"capability": step.undo_capability, "inputs": inputs}
        self._origins[at] = (*place, "undo_capability")
        self._origins[*at, "inputs"] = inputs_at

    def _inputs(self, inputs: tuple[ProposedInput, ...], parent: Tokens, name: str, place: Tokens) -> JsonObject:
        """The inputs object of a call. ``place`` is where the list stands in the proposal."""
        box = InputBox()
        for index, proposed in enumerate(inputs):
            at = (*place, str(index))
            value = self._value(read_input(proposed), (*at, "value"))
            path = box.put(proposed.name, value)
            if isinstance(path, Faulty):
                self._fault(path.code, (*at, "name"), path.message)
            else:
                self._origins[*parent, name, *path] = (*at, "value")
        return box.content()

    def _when(self, when: ProposedWhen, place: Tokens) -> JsonObject:
        lowered: JsonObject = {"left": self._value(reference(when.left), (*place, "left")), "op": when.op}
        self._origins[*place, "left"] = (*place, "left")
        if (when.op == "exists") != (when.right_kind == "none"):
            self._fault("proposal.when", (*place, "right_kind"), "'exists' takes no right side; others need one")
        elif when.right_kind != "none":
            if when.right is None:
                self._fault("proposal.when", (*place, "right"), "the right side has no value")
                return lowered
            read = reference(when.right) if when.right_kind == "ref" else literal(when.right)
            lowered["right"] = self._value(read, (*place, "right"))
            self._origins[*place, "right"] = (*place, "right")
        return lowered
