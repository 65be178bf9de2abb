"""From a checked plan to the skeleton the orchestrator may hold."""

from __future__ import annotations

from engine.domain.plan import Retry, Step
from engine.domain.skeleton import Skeleton, SkeletonStep
from engine.plan.results import CheckedPlan, StepTiming

_NO_RETRY = Retry()


def skeleton_of(checked: CheckedPlan, *, max_parallel: int | None = None, max_repairs: int = 0) -> Skeleton:
    """The skeleton: steps in ``checked.order``, edges as indexes into it, no inputs, no literals, nobody's text.

    ``max_parallel`` is the tenant's bound of the time of the check unless given. ``max_repairs`` is how often the plan may be
    repaired; one without a step that asks for it never is.
    """
    parallel = max_parallel if max_parallel is not None else checked.max_parallel
    place = {index: position for position, index in enumerate(checked.order)}

    def moved(indexes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(place[index] for index in indexes))

    caps = {timing.capability: timing.max_parallel for timing in checked.timings if timing.max_parallel is not None}
    cap_of = {capability: number for number, capability in enumerate(caps, start=1)}
    steps = tuple(
        _skeleton_step(
            checked.plan.steps[index],
            moved(checked.needs[index]),
            moved(checked.tolerates[index]),
            checked.timings[index],
            parallel,
            cap_of.get(checked.timings[index].capability, 0),
        )
        for index in checked.order
    )
    repairs = max_repairs if any(step.on_failure == "repair" for step in steps) else 0
    return Skeleton(steps, parallel, checked.plan_hash, tuple(filter(None, caps.values())), repairs)


def _skeleton_step(
    step: Step, needs: tuple[int, ...], tolerates: tuple[int, ...], timing: StepTiming, max_parallel: int, cap: int
) -> SkeletonStep:
    retry = step.retry or _NO_RETRY
    widest = min(max_parallel, timing.max_parallel or max_parallel)
    return SkeletonStep(
        id=step.id,
        needs=needs,
        tolerates=tolerates,
        kind=step.kind,
        optional=step.optional,
        on_failure=step.on_failure,
        max_attempts=timing.max_attempts,
        backoff_s=retry.backoff_s,
        factor=retry.factor,
        max_backoff_s=retry.max_backoff_s,
        concurrency=min(step.concurrency, widest) if step.is_map else step.concurrency,
        expected_s=round(timing.expected_s, 1),
        undo=timing.undo,
        cap=cap,
    )
