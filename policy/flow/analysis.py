"""Labels over a whole plan, in one pass along its edges.

What flows, and what does not:

- A step's output carries the meet of all its arguments, of what decided that it ran, and of its manifest's ceiling. A model
  never makes anything more trustworthy, and a record looked up by an untrusted key is untrusted.
- What decided that a step ran (its *control*): the plan's author, its ``when``, its ``for_each`` (how often), its ``wait``, and
  the control of every step it cannot do without, because such a step's skip is its own. A step it can do without (every reference
  to it has a default) passes its label on through the value only, and the default is part of that value.
- Whether an earlier step *succeeded* is not control: it can only keep a later step from running. ``exists`` asks for just that,
  so there it counts.
- Nothing raises a label. A reference that cannot be read, a step that is not there and a cycle are as bad as can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

from engine.domain.base import JsonObject, JsonValue
from engine.domain.capability import Capability
from engine.domain.plan import Plan, Step
from engine.domain.run import PlanProvenance, RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan.expressions import Reference
from engine.plan.graph import depth_of, topological_order
from policy.flow.leaves import Leaf, Literal, Term, leaves_of, terms_of
from policy.flow.shapes import Shape, shape_of
from policy.flow.sources import Author, run_value
from policy.flow.traces import LOWEST, NEUTRAL, Trace, meet


@dataclass(slots=True)
class Argument:
    """One argument: its leaves with the label of each."""

    leaves: list[Leaf]
    traces: list[Trace]


@dataclass(slots=True)
class StepFlow:
    """Labels of one step. ``control`` is what decided that it runs, ``count`` how often, ``item`` what it runs over."""

    index: int
    step: Step
    shape: Shape
    arguments: dict[str, Argument] = field(default_factory=dict)
    control: Trace = LOWEST
    count: Trace = NEUTRAL
    item: Trace = LOWEST
    output: Trace = LOWEST


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
            StepFlow(i, step, shape_of(_named(capabilities, step.capability))) for i, step in enumerate(plan.steps)
        ]
        self.by_id = {flow.step.id: flow for flow in self.steps}
        edges = [self._edges(step) for step in plan.steps]
        needs = [sorted(own) for own in edges]
        order = topological_order(needs)
        self.depth = depth_of(needs, order) if order is not None else len(needs)
        if order is None:  # a cycle: such a plan was never checked, and all its labels stay at the bottom
            for flow in self.steps:
                flow.count = LOWEST
                flow.arguments = self.arguments(flow, flow.step.inputs, "inputs", flow.shape)
            return
        for index in order:
            self._propagate(self.steps[index], edges[index])

    def _edges(self, step: Step) -> dict[int, bool]:
        """The steps this one comes after; True where it cannot do without them."""
        tolerates: dict[str, bool] = {}
        for term in _all_terms(step):
            if isinstance(term, Reference) and term.source == "step":
                tolerates[term.step_id] = tolerates.get(term.step_id, True) and term.has_default
        if step.when is not None and step.when.op == "exists":
            for term in terms_of(step.when.left):
                if isinstance(term, Reference):  # the operand itself carries that step's label
                    others = [t for t in _value_terms(step) if isinstance(t, Reference) and t.step_id == term.step_id]
                    tolerates[term.step_id] = all(other.has_default for other in others)
        needed = {name: not tolerates.get(name, False) for name in (*step.needs, *tolerates)}
        return {self.by_id[name].index: hard for name, hard in needed.items() if name in self.by_id and name != step.id}

    def _propagate(self, flow: StepFlow, edges: Mapping[int, bool]) -> None:
        step = flow.step
        flow.control = self._control(flow, edges)
        if step.is_map:
            flow.item = self._item(flow)
        flow.arguments = self.arguments(flow, step.inputs, "inputs", flow.shape)
        if step.approval is not None:
            flow.output = flow.control
            return
        ceiling = flow.shape.ceiling if step.capability is not None else NEUTRAL
        flow.output = _met([ceiling, flow.control, *(_met(a.traces) for a in flow.arguments.values())])

    def _control(self, flow: StepFlow, edges: Mapping[int, bool]) -> Trace:
        step, here = flow.step, f"steps.{flow.step.id}"
        parts = [self.author.existence]
        if step.when is not None:
            parts += self._operands(step.when.left, flow, f"{here}.when/left")
            parts += self._operands(step.when.right, flow, f"{here}.when/right")
        if step.is_map:
            flow.count = _met(self._operands(step.for_each, flow, f"{here}.for_each"))
            parts.append(flow.count)
        if step.wait is not None:
            for name in sorted(step.wait.model_fields_set):
                parts += self._operands(getattr(step.wait, name), flow, f"{here}.wait/{name}")
        for index, hard in sorted(edges.items()):
            earlier = self.steps[index]
            if hard and earlier.control is not self.author.existence:
                parts.append(earlier.control.at(f"{here}.needs/{earlier.step.id}"))
        return _met(parts)

    def _operands(self, value: JsonValue, flow: StepFlow, place: str) -> list[Trace]:
        """What a condition, a count or a pause reads. Its literals are its author's, who is part of control anyway."""
        return [self.term(term, flow).at(place) for term in terms_of(value) if not isinstance(term, Literal)]

    def _item(self, flow: StepFlow) -> Trace:
        traces = [self.term(term, flow) for term in terms_of(flow.step.for_each)]
        return _met(traces).at(f"steps.{flow.step.id}.for_each")

    def arguments(self, flow: StepFlow, inputs: JsonObject, under: str, shape: Shape) -> dict[str, Argument]:
        """The arguments of a call that stands in ``flow``'s step, below its member ``under``."""
        found: dict[str, Argument] = {}
        for name, value in inputs.items():
            here = f"steps.{flow.step.id}.{under}/{_escaped(name)}"
            leaves = leaves_of(value, shape.names)
            traces = [
                _met(self.term(term, flow, name, shape) for term in leaf.terms).at(_below(here, leaf))
                for leaf in leaves
            ]
            found[name] = Argument(leaves, traces)
        return found

    def term(self, term: Term, flow: StepFlow, name: str = "", shape: Shape | None = None) -> Trace:
        """The label of one thing that goes into a value of ``flow``'s step."""
        if isinstance(term, Literal):
            return self.author.literal(term.value, name, shape)
        if not isinstance(term, Reference):
            return LOWEST
        if term.source == "item":
            return flow.item if flow.step.is_map else LOWEST
        pointer = "".join(f"/{_escaped(token)}" for token in term.tokens)
        if term.source == "run":
            return run_value(term.tokens).at(f"run#{pointer}")
        producer = self.by_id.get(term.step_id)
        source = producer.output if producer is not None else LOWEST
        return source.at(f"steps.{term.step_id}#{pointer}")


def _named(capabilities: Mapping[str, Capability], name: str | None) -> Capability | None:
    return capabilities.get(name) if name is not None else None


def _met(traces: Iterable[Trace]) -> Trace:
    return reduce(meet, traces, NEUTRAL)


def _value_terms(step: Step) -> Iterable[Term]:
    yield from terms_of(step.inputs)
    yield from terms_of(step.for_each)
    if step.wait is not None:
        yield from terms_of([step.wait.until, step.wait.for_s])


def _all_terms(step: Step) -> Iterable[Term]:
    yield from _value_terms(step)
    if step.when is not None:
        yield from terms_of([step.when.left, step.when.right])


def _below(here: str, leaf: Leaf) -> str:
    return here + "".join(f"/{_escaped(str(token))}" for token in leaf.place) if leaf.place else here


def _escaped(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")
