"""What a check comes to: a checked plan, or everything that is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.errors import Violation
from engine.domain.ids import PlanHash
from engine.domain.plan import Plan, Step
from engine.plan.normal_form import canonical_bytes


@dataclass(frozen=True, slots=True)
class StepTiming:
    """What scheduling needs to know of a step beyond the plan itself. ``expected_s`` orders work and the ends of a long run's
    histories, and decides nothing else; ``undo`` is true when the plan says how the step is undone, or the manifest demands that
    it can be. ``capability`` may be open ``max_parallel`` times at most, where its manifest bounds that."""

    expected_s: float
    max_attempts: int
    undo: bool = False
    capability: str | None = None
    max_parallel: int | None = None


@dataclass(frozen=True)
class CheckedPlan:
    """A plan that passed every check for one tenant.

    ``document`` is its normal form: defaults left out, every edge spelled out in ``needs``, the answer's steps named.
    ``plan_hash`` is the SHA-256 over the RFC 8785 form of that document, in lower-case hex. Indexes are places in ``plan.steps``:
    ``needs[i]`` are the steps that ``i`` comes after, ``tolerates[i]`` those of them it can do without, ``order`` puts every
    step after its needs.
    """

    plan: Plan
    document: JsonObject = field(repr=False)
    plan_hash: PlanHash
    needs: tuple[tuple[int, ...], ...] = field(repr=False)
    tolerates: tuple[tuple[int, ...], ...] = field(repr=False)
    order: tuple[int, ...] = field(repr=False)
    timings: tuple[StepTiming, ...] = field(repr=False)
    max_parallel: int
    estimated_cost_micro_usd: int

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the plan."""
        return self.plan.steps

    @property
    def capability_names(self) -> tuple[str, ...]:
        """Every capability the plan may call: one entry per calling step, then those that undo."""
        undoing = [step.compensate_with.capability for step in self.steps if step.compensate_with is not None]
        return (*(step.capability for step in self.steps if step.capability is not None), *undoing)

    def canonical_bytes(self) -> bytes:
        """The RFC 8785 form of ``document``: what is stored, and what ``plan_hash`` is the hash of."""
        return canonical_bytes(self.document)


@dataclass(frozen=True)
class CheckResult:
    """The outcome of a check. ``ok`` exactly when ``plan`` is there and ``violations`` is empty; warnings do not count.

    Both lists are sorted by pointer. ``steps`` and ``edges`` count what was readable; ``critical_path`` has the ids of the
    longest chain by expected time and ``critical_path_s`` its length in seconds, when there is no cycle.
    ``estimated_cost_micro_usd`` is what one attempt of every step may cost at most, by the manifests.
    """

    plan: CheckedPlan | None
    violations: tuple[Violation, ...]
    warnings: tuple[Violation, ...] = ()
    steps: int = 0
    edges: int = 0
    critical_path: tuple[str, ...] = ()
    critical_path_s: float = 0.0
    estimated_cost_micro_usd: int = 0

    @property
    def ok(self) -> bool:
        """True when the plan may go on to policy."""
        return self.plan is not None

    @property
    def plan_hash(self) -> PlanHash | None:
        """The hash of the checked plan, or None."""
        return self.plan.plan_hash if self.plan is not None else None

    def to_json(self) -> dict[str, Any]:
        """One JSON object for machines: what ``plan check --json`` prints."""
        return {
            "ok": self.ok,
            "errors": [violation.model_dump() for violation in self.violations],
            "warnings": [violation.model_dump() for violation in self.warnings],
            "steps": self.steps,
            "edges": self.edges,
            "critical_path": list(self.critical_path),
            "critical_path_s": round(self.critical_path_s, 1),
            "estimated_cost_micro_usd": self.estimated_cost_micro_usd,
            "plan_hash": self.plan_hash,
        }
