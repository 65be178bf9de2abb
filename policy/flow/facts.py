"""Facts of a plan and of its steps for the policy language: the public door of the flow analysis.

Pure functions of their arguments. The labels of a plan are kept for the plans looked at last, because every step of a run
asks for the same ones; what is kept decides only how fast an answer comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock
from typing import Literal as OneOf

from engine.domain.base import JsonObject, JsonValue
from engine.domain.capability import Capability, ParameterClass
from engine.domain.plan import Plan, Step
from engine.domain.run import PlanProvenance, RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan.expressions import Reference, Template
from engine.plan.pointers import Nowhere, parse_pointer, resolve
from policy.facts import ArgumentFacts, Origin, PlanFacts, StepFacts
from policy.flow.analysis import Argument, PlanFlow, StepFlow
from policy.flow.hosts import HOLE, host_of_text, hosts_of
from policy.flow.leaves import Leaf, Path, at_place, is_binding_of, is_replaced, leaves_of, pointer_to
from policy.flow.shapes import Shape, shape_of
from policy.flow.traces import LOWEST, NEUTRAL, Link, Trace, as_if_trusted, meet, origin, without_pii

Purpose = OneOf["step", "fallback", "compensation"]

TENANT_INTEGRITY = 2
"""Below this a host counts as untrusted: it is not from the tenant's own configuration or the user's own words."""
_MAX_KEPT_STEPS = 20_000
"""Steps of all plans whose labels are kept together; the labels of one step take a few kilobytes."""
_MAX_PERSONAL = 100

_Key = tuple[int, int]
_KEPT: OrderedDict[_Key, tuple[PlanProvenance | None, RunRequest | None, PlanFlow]] = OrderedDict()
_LOCK = Lock()


def plan_facts(
    plan: Plan,
    capabilities: Mapping[str, Capability],
    request: RunRequest | None,
    provenance: PlanProvenance | None,
    tenant: TenantConfig,
) -> PlanFacts:
    """Facts of a checked plan before anything runs. Values that other steps will produce are not ``bound``.

    ``capabilities`` are the catalog's, by name. Without ``provenance`` every literal and every step is worth 0. The cost is that
    of one attempt of everything, maps at their most, in micro-USD.
    """
    flow = _flow(plan, capabilities, request, provenance, tenant)
    steps = {own.step.id: _planned_facts(flow, own) for own in flow.steps}
    return PlanFacts(
        steps=steps,
        step_count=len(flow.steps),
        depth=flow.depth,
        fan_out=max((facts.items_at_most for facts in steps.values()), default=1),
        cost_micro_usd=sum(_cost(flow, own.step, steps[own.step.id].items_at_most) for own in flow.steps),
        external_hosts=frozenset().union(*(facts.external_hosts for facts in steps.values())),
    )


def step_facts(
    plan: Plan,
    step_id: str,
    item: int | None,
    inputs: JsonObject,
    capabilities: Mapping[str, Capability],
    request: RunRequest | None,
    provenance: PlanProvenance | None,
    tenant: TenantConfig,
    purpose: Purpose = "step",
    *,
    capability: Capability | None = None,
    redacted: tuple[str, ...] = (),
    masked: tuple[str, ...] = (),
) -> StepFacts:
    """Facts of one call with its bound inputs. Labels come from the plan's references, hosts from the bound values.

    ``capability`` is the manifest that will really be called: a fallback's, or that of an inverse; by default what the plan
    names. ``redacted`` are pointers into ``inputs`` whose values were replaced: those places are not personal any more.
    ``masked`` are those of texts in which pieces were replaced: they need not be what the plan says, their labels stay.
    An argument that the plan does not name, or whose bound value is not what the plan says, is as bad as can be. All items of
    a map have the labels of the map, so ``item`` changes nothing. A step that is not in the plan has facts without trust.
    """
    flow = _flow(plan, capabilities, request, provenance, tenant)
    own = flow.by_id.get(step_id)
    if own is None:
        return _unknown(step_id, inputs, capability)
    called = capability if capability is not None else _called(flow, own.step, purpose)
    shape = shape_of(called)
    replaced = frozenset(path for path in map(parse_pointer, redacted) if path)
    changed = replaced.union(path for path in map(parse_pointer, masked) if path)
    expressions, arguments, under = _call_of(flow, own, shape, purpose)
    bound = _Bound(flow, own, shape, called, under)
    for name, value in inputs.items():
        if expressions is None:
            bound.add(name, value, Argument([Leaf((), ())], [_inherited(own)]), replaced)
        elif name in expressions and is_binding_of(expressions[name], value, changed, (name,)):
            bound.add(name, value, arguments[name], replaced)
        else:
            bound.add(name, value, Argument([Leaf((), ())], [LOWEST]), frozenset())
    return bound.facts()


def _flow(
    plan: Plan,
    capabilities: Mapping[str, Capability],
    request: RunRequest | None,
    provenance: PlanProvenance | None,
    tenant: TenantConfig,
) -> PlanFlow:
    key = (id(plan), id(request))
    with _LOCK:
        kept = _KEPT.get(key)
        if kept is not None:
            # The entry holds on to what its ids belong to, so they cannot have been given to something else.
            author, asked, flow = kept
            same = author == provenance and asked is request and flow.plan is plan
            if same and flow.capabilities == capabilities and flow.tenant == tenant:
                _KEPT.move_to_end(key)
                return flow
    flow = PlanFlow(plan, dict(capabilities), request, provenance, tenant)
    with _LOCK:
        _KEPT[key] = (provenance, request, flow)
        _KEPT.move_to_end(key)
        steps = sum(len(kept[2].steps) for kept in _KEPT.values())
        while steps > _MAX_KEPT_STEPS and len(_KEPT) > 1:
            steps -= len(_KEPT.popitem(last=False)[1][2].steps)
    return flow


def _called(flow: PlanFlow, step: Step, purpose: Purpose) -> Capability | None:
    own = flow.capabilities.get(step.capability or "")
    if purpose != "compensation":
        return own
    if step.compensate_with is not None:
        return flow.capabilities.get(step.compensate_with.capability)
    return flow.capabilities.get(own.inverse.capability) if own is not None and own.inverse is not None else None


def _call_of(
    flow: PlanFlow, own: StepFlow, shape: Shape, purpose: Purpose
) -> tuple[JsonObject | None, dict[str, Argument], str]:
    """The expressions of the call, their labels, and the member of the step they stand in; None: the plan does not say."""
    if purpose == "compensation":
        if own.step.compensate_with is None:
            return None, {}, "compensate_with/inputs"
        inputs = own.step.compensate_with.inputs
        return inputs, _labels(flow, own, inputs, shape), "compensate_with/inputs"
    same = purpose == "step" and shape is own.shape
    arguments = own.arguments if same else _labels(flow, own, own.step.inputs, shape)
    return own.step.inputs, arguments, "inputs"


def _labels(flow: PlanFlow, own: StepFlow, inputs: JsonObject, shape: Shape) -> dict[str, Argument]:
    return flow.label(own, {name: leaves_of(value, shape.names) for name, value in inputs.items()}, shape)


def _inherited(own: StepFlow) -> Trace:
    """An undoing that the plan does not spell out is made from the step's inputs and its output, in whatever way."""
    found = own.output
    for argument in own.arguments.values():
        for trace in argument.traces:
            found = meet(found, trace)
    return found.at(f"steps.{own.step.id}.compensate_with")


def _planned_facts(flow: PlanFlow, own: StepFlow) -> StepFacts:
    called = flow.capabilities.get(own.step.capability) if own.step.capability is not None else None
    planned = _Bound(flow, own, own.shape, called, "inputs")
    for name, argument in own.arguments.items():
        planned.foresee(name, argument)
    return planned.facts()


class _Bound:
    """The facts of one call, collected argument by argument."""

    def __init__(self, flow: PlanFlow, own: StepFlow, shape: Shape, called: Capability | None, under: str) -> None:
        self._flow = flow
        self._own = own
        self._shape = shape
        self._called = called
        self._here = f"steps.{own.step.id}."
        self._origins: dict[Link, Origin] = {}
        self._prefix = f"steps.{own.step.id}.{under}"
        self._arguments: list[ArgumentFacts] = []
        self._hosts: set[str] = set(shape.hosts)
        self._untrusted: set[str] = set()
        self._by_class: dict[ParameterClass, Trace] = {
            "selector": own.count,
            "payload": NEUTRAL,
            "control": own.condition,
        }

    def add(self, name: str, value: JsonValue, argument: Argument, replaced: frozenset[Path]) -> None:
        """An argument whose value is known."""
        leads_out, is_address = self._leads_out(name), name in self._shape.addresses
        traces = argument.traces
        for index, leaf in enumerate(argument.leaves):
            trace, held = traces[index], at_place(value, leaf.place)
            if trace.pii and replaced and is_replaced((name, *map(str, leaf.place)), held, replaced):
                traces = [*traces[:index], without_pii(trace), *traces[index + 1 :]]
            if leads_out:
                self._note_hosts(hosts_of(held, is_address=is_address), trace)
        self._close(name, argument.leaves, traces, bound=True)

    def foresee(self, name: str, argument: Argument) -> None:
        """An argument as far as it is known before anything ran."""
        leads_out, is_address = self._leads_out(name), name in self._shape.addresses
        bound = True
        for leaf, trace in zip(argument.leaves, argument.traces, strict=True):
            if leads_out:
                self._note_hosts(_foreseen_hosts(leaf, self._flow.request, is_address), trace)
            bound = bound and not leaf.waits
        self._close(name, argument.leaves, argument.traces, bound=bound)

    def _leads_out(self, name: str) -> bool:
        """Where a call goes is chosen by its selectors and by what is declared as an address; a payload may quote URLs."""
        return self._kind(name) != "payload" or name in self._shape.addresses

    def _kind(self, name: str) -> ParameterClass:
        return self._called.parameter_class(name) if self._called is not None else "selector"

    def _note_hosts(self, hosts: Iterable[str], trace: Trace) -> None:
        for host in hosts:
            self._hosts.add(host)
            if trace.integrity < TENANT_INTEGRITY:
                self._untrusted.add(host)

    def _close(self, name: str, leaves: list[Leaf], traces: list[Trace], *, bound: bool) -> None:
        found = NEUTRAL
        personal: list[str] = []
        for leaf, trace in zip(leaves, traces, strict=True):
            if trace is not NEUTRAL:
                place = pointer_to((name, *leaf.place))
                found = meet(found, trace.at(f"{self._prefix}{place}"))
                if trace.pii:
                    personal.append(place)
        kind = self._kind(name)
        self._by_class[kind] = meet(self._by_class[kind], found)
        if kind == "control":  # it steers, and it is handed over like a payload: how far it may travel counts as well
            self._by_class["payload"] = meet(self._by_class["payload"], as_if_trusted(found))
        lowest = self._origin(found.low)
        self._arguments.append(
            ArgumentFacts(
                name=name,
                parameter_class=kind,
                label=found.label,
                integrity_from=lowest,
                confidentiality_from=lowest if found.high is found.low else self._origin(found.high),
                pii_from=self._origin(found.personal),
                bound=bound,
                personal=tuple(personal) if len(personal) <= _MAX_PERSONAL else (pointer_to((name,)),),
            )
        )

    def _origin(self, link: Link | None) -> Origin | None:
        """The way, with the pointer into the plan of the place of use."""
        if link is None:
            return None
        known = self._origins.get(link)
        if known is None:
            inside = link.text.removeprefix(self._here)
            known = origin(link, f"/steps/{self._own.index}/{inside}" if inside != link.text else "")
            self._origins[link] = known
        return known

    def facts(self) -> StepFacts:
        """What was collected."""
        own, flow = self._own, self._flow
        selectors, payload, steered = (self._by_class[kind] for kind in ("selector", "payload", "control"))
        ceiling = self._shape.ceiling if own.step.capability is not None else NEUTRAL
        output = meet(meet(meet(selectors, payload), steered), ceiling)
        control = meet(flow.author.existence, steered)
        return StepFacts(
            step_id=own.step.id,
            capability=self._called.name if self._called is not None else own.step.capability or "",
            arguments=tuple(self._arguments),
            selectors=selectors.label,
            payload=payload.label,
            control=control.label,
            output=output.label,
            control_from=self._origin(control.low),
            selectors_from=self._origin(selectors.low),
            external_hosts=frozenset(self._hosts),
            untrusted_hosts=frozenset(self._untrusted),
            items_at_most=_items_at_most(own.step, flow.tenant),
        )


def _foreseen_hosts(leaf: Leaf, request: RunRequest | None, is_address: bool) -> Iterator[str]:
    if leaf.known:
        yield from hosts_of(leaf.value, is_address=is_address)
    elif leaf.template is not None:
        yield from host_of_text(_outline(leaf.template), is_address=is_address)
    elif request is not None:
        for term in leaf.terms:
            if isinstance(term, Reference) and term.source == "run":
                value = resolve(_run_values(request), term.tokens)
                if not isinstance(value, Nowhere):
                    yield from hosts_of(value, is_address=is_address)


def _outline(template: Template) -> str:
    """The text of a template with a hole for every value: enough to tell a host that stands in it whole."""
    return "".join(text + (HOLE if name is not None else "") for text, name in template.parts)


def _run_values(request: RunRequest) -> JsonObject:
    documents = [{"name": document.name, "text": document.text} for document in request.context.documents]
    return {
        "intent": request.intent,
        "goals": list(request.goals),
        "context": {"values": request.context.values, "documents": documents},
    }


def _items_at_most(step: Step, tenant: TenantConfig) -> int:
    if not step.is_map:
        return 1
    if isinstance(step.for_each, list):
        return len(step.for_each)
    return min(step.max_items or tenant.bounds.max_fan_out, tenant.bounds.max_fan_out)


def _cost(flow: PlanFlow, step: Step, items: int) -> int:
    called = flow.capabilities.get(step.capability) if step.capability is not None else None
    return called.cost.per_call_micro_usd * items if called is not None else 0


def _unknown(step_id: str, inputs: JsonObject, capability: Capability | None) -> StepFacts:
    lowest = LOWEST.label
    arguments = tuple(
        ArgumentFacts(name, capability.parameter_class(name) if capability is not None else "selector", lowest)
        for name in inputs
    )
    hosts = frozenset(hosts_of(inputs)) | shape_of(capability).hosts
    return StepFacts(
        step_id=step_id,
        capability=capability.name if capability is not None else "",
        arguments=arguments,
        selectors=lowest,
        payload=lowest,
        control=lowest,
        output=lowest,
        external_hosts=hosts,
        untrusted_hosts=hosts,
    )
