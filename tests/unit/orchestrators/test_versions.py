"""A run that was started by an earlier version's document finishes on today's code, and does what that version did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.domain.names import INPUT_VERSION, ROLLS_SINCE
from engine.domain.skeleton import Skeleton, SkeletonStep
from tests.unit.local_host.durable_app import running
from tests.unit.orchestrators.test_generations import RollingApp, layers
from tests.unit.orchestrators.test_on_embedded_host import flaky
from tests.unit.orchestrators.test_run_orchestrator import REF

TERMS = {"limit": 3, "lease_ms": 600_000, "max_wait_s": 10.0}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "1": {},
    "1 with a place": {"quota": TERMS},
    "2": {"v": 2, "quota": TERMS},
    "3": {"v": 3, "quota": TERMS},
    "4": {"v": 4, "quota": TERMS, "roll_after": 20},
    "4 as long as usual": {"v": 4, "quota": TERMS},
    "5": {"v": 5, "quota": TERMS, "roll_after": 20, "hold_ms": 60_000},
    "5 as long as usual": {"v": 5, "quota": TERMS},
}


def test_there_is_a_document_of_every_version() -> None:
    assert {int(name.split()[0]) for name in DOCUMENTS} == set(range(1, INPUT_VERSION + 1))


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_a_run_of_each_version_finishes_on_todays_code(tmp_path: Path, name: str) -> None:
    steps = (SkeletonStep("m", kind="map", concurrency=20, backoff_s=1.0), *layers(60, 12, backoff_s=1.0).steps)
    app = RollingApp(Skeleton(steps, 32, ""), lambda value: 5.0, flaky)
    asked: list[str] = []

    @app.entity_function
    def tenant_quota(context: Any) -> None:
        asked.append(context.operation_name)
        context.set_result({"granted": True})

    document = REF | DOCUMENTS[name]
    async with running(app, tmp_path) as bench:
        app.bench = bench
        await bench.start("run_orchestrator", document, "run-1")
        item = await bench.run_to_end("run-1", max_alarms=5_000)
        await bench.settle()
    assert json.loads(item.output) == {"status": "succeeded", "code": None, "recorded": True}
    assert set(app.performed().values()) == {1}
    version = document.get("v", 1)
    items = [value for called, value in app.calls if called == "perform_step" and "item" in value]
    assert len({value["item"] for value in items}) == 105
    assert all(("waiter" in value) == (version >= 2) for value in items)
    assert (asked[:1] == ["acquire"]) == ("quota" in document)
    assert (app.count("checkpoint_run") > 0) == (version >= ROLLS_SINCE and "roll_after" in document)
