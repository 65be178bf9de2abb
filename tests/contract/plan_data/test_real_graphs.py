"""Public graphs of tasks: their order, depth and time come out as their sources say, in the time a large plan may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.domain.skeleton import MAX_SKELETON_BYTES, size_bytes
from engine.domain.tenant import Bounds
from engine.plan import check_plan, skeleton_of
from tests.unit.plan.samples import CATALOG, plan, step, tenant_for

from .data import data_files, read_json
from .verdicts import asynchow_verdicts

WIDE = tenant_for(CATALOG, bounds=Bounds(max_steps=5_000, max_depth=5_000, max_wall_time_s=30 * 86_400))


def test_the_time_of_a_plan_is_the_gold_time_of_asynchow() -> None:
    found = list(asynchow_verdicts())
    assert [verdict.name for verdict, equal in found if verdict.errors or not equal] == []
    assert len(found) == 580


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
