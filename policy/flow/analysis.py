"""Labels over a whole plan, in one pass along its edges.

What flows, and what does not:

- A step's output carries the meet of all its arguments, of what decided that it ran, and of its manifest's ceiling. A model
  never makes anything more trustworthy, and a record looked up by an untrusted key is untrusted.
- What decided that a step ran (its *condition*): its ``when``, its ``for_each`` (how often), its ``wait``, and the condition of
  every step it cannot do without, because such a step's skip is its own. With the plan's author, who put the step there, that
  is its *control*. The author stands in the control of every single step and is not part of outputs: what a record says about
  a key of the user's own does not change with who thought of looking it up. A step
  it can do without (every reference to it has a default) passes its label on through the value only, default included.
- Whether an earlier step *succeeded* is not control: it can only keep a later step from running. ``exists`` asks for just that,
  so there it counts.
- An undoing is decided by what decided the step it undoes: that it happens at all is somebody's failure, and only takes back.
- Nothing raises a label. A reference that cannot be read, a step that is not there and a cycle are as bad as can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from engine.domain.base import JsonValue
from engine.domain.capability import Capability
from engine.domain.plan import Plan, Step
from engine.domain.run import PlanProvenance, RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan.expressions import Reference
from engine.plan.graph import depth_of, topological_order
from policy.flow.leaves import Leaf, Literal, Term, leaves_of, pointer_to, references_of
from policy.flow.shapes import Shape, shape_of
from policy.flow.sources import OWN_DATA, Author, run_value
from policy.flow.traces import LOWEST, NEUTRAL, Trace, meet, without_pii

_ANSWER = Trace(2, OWN_DATA, True)
"""What a person's answer is worth: the platform's own record of it, which names the person. It says nothing about what the plan
does with it, so it raises nobody else's label."""

_SAFE_ANSWER = (("approved",), ("at",))
"""The parts of an answer that name nobody."""


class Argument(NamedTuple):
    """One argument: its leaves with the label of each."""

    leaves: list[Leaf]
    traces: list[Trace]


class StepFlow:
    """Labels of one step. ``condition`` is what decided that it runs, ``count`` how often, ``item`` what it runs over.

    Everything starts at the bottom; the propagation raises it to what it is worth.
    """

    __slots__ = ("arguments", "condition", "count", "index", "is_map", "item", "output", "shape", "step", "values")

    def __init__(self, index: int, step: Step, shape: Shape) -> None:
        self.index = index
        self.step = step
        self.shape = shape
        self.is_map = step.is_map
        self.values = {name: leaves_of(value, shape.names) for name, value in step.inputs.items()}
        self.arguments: dict[str, Argument] = {}
        self.condition = self.item = self.output = LOWEST
        self.count = LOWEST if self.is_map else NEUTRAL


class PlanFlow:
    """The labels of one plan under one author, request, tenant and catalog. Immutable once built."""

    def __init__(
        self,
        plan: Plan,
        capabilities: Mapping[str, Capability],
        request: RunRequest | None,
        provenance: PlanProvenance | None,
        tenant: TenantConfig,
    ) -> None:
        self.plan = plan
        self.capabilities = capabilities
        self.request = request
        self.tenant = tenant
        self.author = Author(provenance, request, tenant)
        self.steps = [
            StepFlow(i, step, shape_of(capabilities.get(step.capability) if step.capability is not None else None))
            for i, step in enumerate(plan.steps)
        ]
        self.by_id = {flow.step.id: flow for flow in self.steps}
        edges = [self._edges(flow) for flow in self.steps]
        needs = [sorted(own) for own in edges]
        order = topological_order(needs)
        self.depth = depth_of(needs, order) if order is not None else len(needs)
        if order is None:  # a cycle: such a plan was never checked, and its labels stay at the bottom
            for flow in self.steps:
                flow.arguments = self.label(flow, flow.values, flow.shape)
            return
        for index in order:
            self._propagate(self.steps[index], edges[index])

    def _edges(self, flow: StepFlow) -> dict[int, bool]:
        """The steps this one comes after; True where it cannot do without them."""
        step = flow.step
        hard: dict[str, bool] = {}
        for leaves in flow.values.values():
            for leaf in leaves:
                for term in leaf.terms:
                    if isinstance(term, Reference) and term.source == "step":
                        hard[term.step_id] = hard.get(term.step_id, False) or not term.has_default
        for value, tolerant in _operands(step):
            for reference in references_of(value):
                if isinstance(reference, Reference) and reference.source == "step":
                    missed = not reference.has_default and not tolerant
                    hard[reference.step_id] = hard.get(reference.step_id, False) or missed
        for need in step.needs:
            hard.setdefault(need, True)
        return {self.by_id[name].index: value for name, value in hard.items() if name in self.by_id and name != step.id}

    def _propagate(self, flow: StepFlow, edges: Mapping[int, bool]) -> None:
        step = flow.step
        flow.condition = self._condition(flow, edges)
        if flow.is_map:
            flow.item = self._item(flow)
        flow.arguments = self.label(flow, flow.values, flow.shape)
        output = flow.condition
        if step.capability is not None:
            output = meet(flow.shape.ceiling, output)
        elif step.wait is not None:
            output = self._instant(flow, output)
        elif step.approval is not None:
            output = meet(_ANSWER, output)
        for argument in flow.arguments.values():
            for trace in argument.traces:
                output = meet(output, trace)
        flow.output = output

    def _condition(self, flow: StepFlow, edges: Mapping[int, bool]) -> Trace:
        step, here = flow.step, f"steps.{flow.step.id}"
        found = NEUTRAL
        if step.when is not None:
            found = meet(found, self._operand(step.when.left, flow, f"{here}.when/left"))
            found = meet(found, self._operand(step.when.right, flow, f"{here}.when/right"))
        if flow.is_map:
            flow.count = self._operand(step.for_each, flow, f"{here}.for_each")
            found = meet(found, flow.count)
        if step.wait is not None:
            for name in sorted(step.wait.model_fields_set):
                found = meet(found, self._operand(getattr(step.wait, name), flow, f"{here}.wait/{name}"))
        for index, hard in edges.items():
            earlier = self.steps[index]
            if hard and earlier.condition is not NEUTRAL:
                found = meet(found, earlier.condition.at(f"{here}.needs/{earlier.step.id}"))
        return found

    def _instant(self, flow: StepFlow, output: Trace) -> Trace:
        """A pause ends at an instant, which later steps can read: it says what the plan's author wrote there."""
        wait = flow.step.wait
        for name in sorted(wait.model_fields_set) if wait is not None else ():
            for leaf in leaves_of(getattr(wait, name)):
                output = meet(output, self._met(flow, leaf.terms))
        return output

    def _operand(self, value: JsonValue, flow: StepFlow, place: str) -> Trace:
        """What a condition, a count or a pause reads. Its literals are its author's, who is part of control."""
        found = NEUTRAL
        for reference in references_of(value):
            found = meet(found, self.term(reference, flow).at(place))
        return found

    def _item(self, flow: StepFlow) -> Trace:
        found = self._met(flow, [term for leaf in leaves_of(flow.step.for_each) for term in leaf.terms])
        return found.at(f"steps.{flow.step.id}.for_each")

    def label(self, flow: StepFlow, values: Mapping[str, list[Leaf]], shape: Shape) -> dict[str, Argument]:
        """The labels of the leaves of a call that stands in ``flow``'s step."""
        return {
            name: Argument(leaves, [self._met(flow, leaf.terms, name, shape) for leaf in leaves])
            for name, leaves in values.items()
        }

    def _met(self, flow: StepFlow, terms: Sequence[Term], name: str = "", shape: Shape | None = None) -> Trace:
        found = NEUTRAL
        for term in terms:
            found = meet(found, self.term(term, flow, name, shape))
        return found

    def term(self, term: Term, flow: StepFlow, name: str = "", shape: Shape | None = None) -> Trace:
        """The label of one thing that goes into a value of ``flow``'s step."""
        if isinstance(term, Literal):
            return self.author.literal(term.value, name, shape)
        if not isinstance(term, Reference):
            return LOWEST
        if term.source == "item":
            return flow.item if flow.is_map else LOWEST
        if term.source == "run":
            return run_value(term.tokens)
        producer = self.by_id.get(term.step_id)
        source = producer.output if producer is not None else LOWEST
        if producer is not None and producer.step.approval is not None and term.tokens[:1] in _SAFE_ANSWER:
            source = without_pii(source)
        return source.at(f"steps.{term.step_id}#{pointer_to(term.tokens)}")


def _operands(step: Step) -> Iterator[tuple[JsonValue, bool]]:
    """Every value of a step outside its inputs, and whether it is fine for what it refers to not to be there."""
    if step.when is not None:
        yield step.when.left, step.when.op == "exists"
        yield step.when.right, False
    if step.for_each is not None:
        yield step.for_each, False
    if step.wait is not None:
        yield step.wait.until, False
        yield step.wait.for_s, False
