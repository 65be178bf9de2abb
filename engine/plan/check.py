"""The check: from a document nobody trusts to a plan that may be vetted, or to the list of everything wrong with it.

Pure and deterministic: the same document, tenant, catalog and constraints give the same result. It decides nothing about policy
and looks at no run. Time is linear in the size of the document and its edges (plus a log factor for the order).

The codes, each with the JSON Pointer of the offence:

- text: ``plan.too_large``, ``plan.too_deep``, ``plan.duplicate_key``, ``plan.not_a_number``, ``plan.number_range``,
  ``plan.lone_surrogate``, ``plan.syntax``
- shape: ``plan.schema``, ``plan.empty``, ``plan.duplicate_step``, ``plan.expression``, ``plan.template_name``,
  ``plan.template_type``, ``plan.wait_invalid``
- graph: ``plan.unknown_reference``, ``plan.self_reference``, ``plan.cycle``, ``plan.answer_unknown``,
  ``plan.answer_empty``
- capabilities: ``plan.unknown_capability``, ``plan.capability_not_enabled``, ``plan.capability_schema``,
  ``plan.delivery_unavailable``, ``plan.compensation_missing``
- types: ``plan.input_missing``, ``plan.input_unknown``, ``plan.input_type``, ``plan.input_enum``, ``plan.input_invalid``,
  ``plan.reference_type``, ``plan.unknown_output``, ``plan.unknown_run_value``, ``plan.item_outside_for_each``,
  ``plan.for_each_not_array``, ``plan.when_type``
- bounds: ``plan.too_many_steps``, ``plan.depth``, ``plan.fan_out``, ``plan.wall_time``, ``plan.cost``,
  ``plan.skeleton_too_large``
- repairs of a plan that runs (``engine.plan.versions``): ``plan.repair_changes``, ``plan.repair_reuses_id``
- warnings: ``plan.edge_inferred``, ``plan.template_unused``, ``plan.cache_ignored``, ``plan.retry_ignored``,
  ``plan.on_failure_as_fail``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.domain.base import JsonValue
from engine.domain.plan import Plan, Step
from engine.domain.run import RunConstraints
from engine.domain.skeleton import MAX_SKELETON_BYTES, size_bytes
from engine.domain.strict_json import Place
from engine.domain.tenant import PLATFORM_MAX_PLAN_BYTES, TenantConfig
from engine.plan.documents import Outline, read_outline
from engine.plan.estimates import cost_micro_usd, expected_seconds, is_undone, max_attempts
from engine.plan.findings import Findings
from engine.plan.graph import depth_of, find_cycles, longest_path, topological_order
from engine.plan.limits import Limits, limits_of
from engine.plan.normal_form import canonical_bytes, hash_of, normal_form
from engine.plan.results import CheckedPlan, CheckResult, StepTiming
from engine.plan.scope import Dependency, Reader
from engine.plan.skeletons import skeleton_of
from engine.plan.step_rules import StepFacts, StepRules
from engine.ports.catalog import Catalog

_STEPS: Place = (None, "steps")
_ANSWER: Place = (None, "answer")
_MAX_CYCLES = 20
_MAX_PRINTED = 12


@dataclass(frozen=True, slots=True)
class _Graph:
    """The graph of a plan whose edges are known; ``order`` is None when it has a cycle."""

    needs: list[list[int]]
    order: list[int] | None
    path: list[int]
    path_s: float

    @property
    def edges(self) -> int:
        return sum(map(len, self.needs))


def check_plan(
    document: JsonValue | bytes,
    *,
    tenant: TenantConfig,
    catalog: Catalog,
    constraints: RunConstraints | None = None,
) -> CheckResult:
    """Check a plan for a tenant, in full: every error is listed (up to 1,000), with its code and JSON Pointer.

    ``document`` is JSON text or a JSON value; it is not kept and not changed. ``constraints`` may only tighten the tenant's
    bounds. Never raises for anything in the document; the codes are listed at the top of this module.

    Reference types: the producer's output schema is compared with the consumer's input schema. A certain misfit is an error;
    what the schemas leave open passes here and is checked again with the bound value.
    """
    findings = Findings()
    outline = read_outline(document, findings)
    if outline is None:
        return CheckResult(None, findings.errors(), findings.warnings())
    return _Check(outline, tenant, catalog, limits_of(tenant, constraints), findings).run()


class _Check:
    """One check of one outline, in the order: steps one by one, the graph they make, bounds, the answer, the normal form."""

    def __init__(
        self, outline: Outline, tenant: TenantConfig, catalog: Catalog, limits: Limits, findings: Findings
    ) -> None:
        self._outline = outline
        self._entries = outline.entries
        self._limits = limits
        self._findings = findings
        self._reader = Reader(outline, catalog, findings)
        self._rules = StepRules(self._reader, tenant, limits, findings)

    def run(self) -> CheckResult:
        facts = [self._rules.check(entry) for entry in self._entries]
        steps = [(entry.step, fact) for entry, fact in zip(self._entries, facts, strict=True)]
        expected_s = [expected_seconds(step, fact) if step else 0.0 for step, fact in steps]
        cost = sum(map(cost_micro_usd, facts))
        self._warn_of_inferred_edges()
        graph = self._graph(expected_s)
        self._check_bounds(graph, cost)
        uses = self._check_answer(graph)
        checked = None
        if not self._findings.failed and graph.order is not None:
            timings = tuple(
                _timing(step, fact, seconds) for (step, fact), seconds in zip(steps, expected_s, strict=True) if step
            )
            checked = self._checked_plan(graph, graph.order, uses, timings, cost)
        return CheckResult(
            plan=None if self._findings.failed else checked,
            violations=self._findings.errors(),
            warnings=self._findings.warnings(),
            steps=len(self._entries),
            edges=graph.edges,
            critical_path=tuple(map(self._name, graph.path)),
            critical_path_s=graph.path_s,
            estimated_cost_micro_usd=cost,
        )

    def _name(self, index: int) -> str:
        return self._entries[index].step_id or f"#{index}"

    def _warn_of_inferred_edges(self) -> None:
        for index, edges in enumerate(self._reader.edges):
            for earlier, edge in edges.items():
                if not edge.declared:
                    names = f"{self._name(index)!r} refers to {self._name(earlier)!r}"
                    message = f"{names} without naming it in 'needs'; the edge is inferred"
                    self._findings.warn("plan.edge_inferred", edge.place, message)

    def _graph(self, expected_s: list[float]) -> _Graph:
        needs = [sorted(edges) for edges in self._reader.edges]
        order = topological_order(needs)
        if order is not None:
            return _Graph(needs, order, *longest_path(needs, order, expected_s))
        for cycle in find_cycles(needs)[:_MAX_CYCLES]:
            place = self._reader.edges[cycle[0]][cycle[1]].place
            self._findings.error("plan.cycle", place, f"these steps wait for each other: {self._printed(cycle)}")
        return _Graph(needs, None, [], 0.0)

    def _printed(self, cycle: Sequence[int]) -> str:
        names = list(map(self._name, cycle))
        if len(names) > _MAX_PRINTED:
            names = [*names[: _MAX_PRINTED - 1], f"… {len(names) - _MAX_PRINTED + 1} more …"]
        return " → ".join([*names, self._name(cycle[0])])

    def _check_bounds(self, graph: _Graph, cost: int) -> None:
        limits, error = self._limits, self._findings.error
        count = len(self._entries)
        if count > limits.max_steps:
            error("plan.too_many_steps", _STEPS, f"the plan has {count} steps; {limits.max_steps} are allowed")
        if cost > limits.cost_micro_usd:
            allowed = f"{limits.cost_micro_usd} are allowed ('max_items' bounds a map)"
            error("plan.cost", _STEPS, f"the plan may cost {cost} micro-USD; {allowed}")
        if graph.edges > MAX_SKELETON_BYTES // 2:  # an edge takes two bytes at the very least
            error("plan.skeleton_too_large", _STEPS, f"{graph.edges} edges are more than the orchestrator may hold")
        if graph.order is None:
            return
        depth = depth_of(graph.needs, graph.order)
        if depth > limits.max_depth:
            error("plan.depth", _STEPS, f"the longest chain has {depth} steps; {limits.max_depth} are allowed")
        if graph.path_s > limits.wall_time_s:
            allowed = f"{limits.wall_time_s:.0f} s are allowed"
            error("plan.wall_time", _STEPS, f"the plan is expected to take {graph.path_s:.0f} s; {allowed}")

    def _check_answer(self, graph: _Graph) -> list[str]:
        """The ids of the steps the answer uses, each once; by default the calls that no other step needs."""
        if self._outline.head is None:
            return []
        answer, place = self._outline.head.answer, (_ANSWER, "uses")
        if "uses" not in answer.model_fields_set:
            needed = {need for earlier in graph.needs for need in earlier}
            last = [e.step for e in self._entries if e.step is not None and e.index not in needed]
            return [step.id for step in last if step.capability is not None]
        if not answer.uses:
            self._findings.error("plan.answer_empty", place, "the answer uses no step, so it could say nothing")
        for position, step_id in enumerate(answer.uses):
            index = self._outline.index_of.get(step_id)
            if index is None:
                self._findings.error("plan.answer_unknown", (place, position), f"there is no step {step_id!r}")
        return list(dict.fromkeys(answer.uses))

    def _checked_plan(
        self, graph: _Graph, order: list[int], uses: list[str], timings: tuple[StepTiming, ...], cost: int
    ) -> CheckedPlan | None:
        if not uses:
            self._findings.error("plan.answer_empty", None, "no step has an output, so there is nothing to answer from")
            return None
        document = normal_form(self._outline.raw, graph.needs, uses)
        canonical = canonical_bytes(document)
        if len(canonical) > PLATFORM_MAX_PLAN_BYTES:
            allowed = f"{PLATFORM_MAX_PLAN_BYTES} are allowed"
            message = f"with every edge spelled out the plan has {len(canonical)} bytes; {allowed}"
            self._findings.error("plan.too_large", None, message)
            return None
        checked = CheckedPlan(
            plan=Plan.model_validate(document),
            document=document,
            plan_hash=hash_of(canonical),
            needs=tuple(map(tuple, graph.needs)),
            tolerates=tuple(map(_tolerated, self._reader.edges)),
            order=tuple(order),
            timings=timings,
            max_parallel=self._limits.max_parallel,
            estimated_cost_micro_usd=cost,
        )
        size = size_bytes(skeleton_of(checked))
        if size > MAX_SKELETON_BYTES:
            message = f"ids and edges take {size} bytes in the orchestrator; {MAX_SKELETON_BYTES} are allowed"
            self._findings.error("plan.skeleton_too_large", _STEPS, message)
        return checked


def _timing(step: Step, facts: StepFacts, expected_s: float) -> StepTiming:
    capability = facts.capability
    return StepTiming(
        expected_s=expected_s,
        max_attempts=max_attempts(step, capability),
        undo=is_undone(step, facts),
        capability=capability.name if capability is not None else None,
        max_parallel=capability.max_parallel if capability is not None else None,
    )


def _tolerated(edges: Mapping[int, Dependency]) -> tuple[int, ...]:
    """The steps whose absence this step survives: it refers to them, and every reference has a default."""
    return tuple(sorted(index for index, edge in edges.items() if edge.referenced and edge.can_do_without))
