"""Responses our driver meets, against the JSON schemas that ship inside the SDK wheel's own tests."""

from __future__ import annotations

import importlib.metadata
import json
import runpy
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import jsonschema
import pytest

from local_host.durable.episodes import Mail
from tests.contract.local_host.random_programs import Loop, World, make_app
from tests.unit.local_host.durable_app import PlainApp, running


def shipped_schema(file_name: str) -> Any:
    """Loaded by path: the wheel's top-level `tests` package would collide with ours."""
    files = importlib.metadata.files("azure-functions-durable") or []
    found = [entry for entry in files if str(entry).endswith(f"tests/orchestrator/schemas/{file_name}")]
    assert found, f"the SDK wheel no longer ships {file_name}"
    return runpy.run_path(str(Path(found[0].locate())))["schema"]  # type: ignore[arg-type]  # a real path


@pytest.fixture(scope="module")
def validators() -> dict[str, Any]:
    return {
        "orchestrator": jsonschema.Draft7Validator(shipped_schema("OrchetrationStateSchema.py")),
        "entity": jsonschema.Draft7Validator(shipped_schema("EntityStateSchema.py")),
    }


def check_all(app: PlainApp, validators: dict[str, Any]) -> set[str]:
    """Validate what the app's wrappers returned; returns the kinds seen."""
    for kind, text in app.responses:
        errors = [error.message for error in validators[kind].iter_errors(json.loads(text))]
        assert errors == [], (kind, text, errors)
    return {kind for kind, _ in app.responses}


def test_random_programs_answer_by_the_schema(validators: dict[str, Any]) -> None:
    responses = 0
    for seed in range(30):
        app, world = make_app(), World(seed)
        loop = Loop.start(app, {"seed": seed, "retries": True}, warm=False, strict=False)
        mail, at = Mail(), "2026-01-01T00:00:00.000000Z"
        for _ in range(40):
            writes = loop.episode(mail, at)
            if writes.instance.is_terminal or writes.reset:
                break
            world.take_in(writes)
            mail, at = world.batch()
        check_all(app, validators)
        responses += len(app.responses)
    assert responses > 80


async def test_entities_answer_by_the_schema(validators: dict[str, Any], tmp_path: Path) -> None:
    app = PlainApp()

    @app.entity_function
    def counter(context: Any) -> None:
        match context.operation_name:
            case "add":
                context.set_state(context.get_state(lambda: 0) + context.get_input())
            case "fail":
                raise ValueError("no")
            case "delete":
                context.destruct_on_exit()
        context.set_result(context.get_state(lambda: 0))

    @app.orchestration
    def uses(context: Any) -> Any:
        entity = df.EntityId("counter", "k")
        yield context.call_entity(entity, "add", 3)
        try:
            yield context.call_entity(entity, "fail")
        except Exception:
            context.set_custom_status("failed once")
        yield context.call_entity(entity, "delete")
        raise RuntimeError("end")

    async with running(app, tmp_path, warm=False) as bench:
        await bench.start("uses")
        assert (await bench.run_to_end("run")).status == "Failed"
    assert check_all(app, validators) == {"orchestrator", "entity"}


def test_the_schema_notices_a_wrong_answer(validators: dict[str, Any]) -> None:
    wrong = {"isDone": False, "schemaVersion": 2, "actions": [[{"actionType": 0, "functionName": "A"}]]}
    assert list(validators["orchestrator"].iter_errors(wrong))
