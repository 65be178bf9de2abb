"""Public graphs of tasks: their order, depth and time come out as their sources say, in the time a large plan may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.domain.skeleton import MAX_SKELETON_BYTES, size_bytes
from engine.domain.tenant import Bounds
from engine.plan import check_plan, skeleton_of
from engine.plan.graph import longest_path, topological_order
from tests.unit.plan.samples import CATALOG, plan, step, tenant_for

from .data import data_files, read_json, read_jsonl

WIDE = tenant_for(CATALOG, bounds=Bounds(max_steps=5_000, max_depth=5_000, max_wall_time_s=30 * 86_400))


def test_the_time_of_a_plan_is_the_gold_time_of_asynchow() -> None:
    wrong = []
    records = read_jsonl("plans/asynchow.jsonl")
    for record in records:
        if record["gold_mismatch"]:
            continue
        ids = sorted(record["seconds"])
        needs: list[set[int]] = [set() for _ in ids]
        for before, after in record["edges"]:
            if before != "START" and after != "END":
                needs[ids.index(after)].add(ids.index(before))
        earlier = [sorted(need) for need in needs]
        order = topological_order(earlier)
        assert order is not None
        for bound in (0, 1):
            _, seconds = longest_path(earlier, order, [record["seconds"][step_id][bound] for step_id in ids])
            if abs(seconds - record["optimal_s"][bound]) > 1e-6 * max(1.0, seconds):
                wrong.append((record["id"], bound, seconds, record["optimal_s"]))
    print(f"asynchow: {len(records)} plans, {len(wrong)} with another time")
    assert wrong == []


@pytest.mark.parametrize(
    "path", data_files("dags/wf", "*.json") + data_files("dags/wfgen", "*.json"), ids=lambda path: path.stem
)
def test_a_real_workflow_is_a_plan(path: Path) -> None:
    tasks: list[list[Any]] = read_json(f"dags/{path.parent.name}/{path.name}")["tasks"]
    steps = [step(f"t{index}", needs=[f"t{parent}" for parent in task[3]]) for index, task in enumerate(tasks)]
    result = check_plan(plan(*steps), tenant=WIDE, catalog=CATALOG)
    assert result.violations == ()
    assert result.edges == sum(len(set(task[3])) for task in tasks)
    assert result.plan is not None
    skeleton = skeleton_of(result.plan)
    assert [each.id for each in skeleton.steps] == [f"t{index}" for index in range(len(tasks))]
    assert size_bytes(skeleton) <= MAX_SKELETON_BYTES
