"""`./livoa host --status` and `--export`: what they say of a store, beside a running host and without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.exit_codes import ExitCode
from cli.main import main
from local_host.durable.clock import VirtualClock
from local_host.durable.engine import DurableEngine
from local_host.durable.storage import Storage
from local_host.errors import HostError
from local_host.instance_lock import instance_lock
from local_host.store_report import export, status
from tests.replay.recording import load, replay
from tests.unit.local_host.durable_app import START_AT, PlainApp


def family() -> PlainApp:
    app = PlainApp()

    @app.activity
    def echo(value: Any) -> Any:
        return value

    @app.orchestration
    def child(context: Any) -> Any:
        return (yield context.call_activity("echo", "child"))

    @app.orchestration
    def parent(context: Any) -> Any:
        return (yield context.call_sub_orchestrator("child", None, "the-child"))

    @app.orchestration
    def waits(context: Any) -> Any:
        yield context.wait_for_external_event("never")

    return app


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A data directory with a finished parent, its child, and an instance that waits."""
    engine = DurableEngine(family(), Storage(tmp_path / "durable.sqlite"), VirtualClock(START_AT))
    await engine.start()
    await engine.start_new("waits", "waiting", None)
    await engine.start_new("parent", "done", json.dumps("1"))
    await engine.wait_for_end("done", 10)
    await engine.stop()
    return tmp_path


async def test_the_status_counts_instances_and_names_the_oldest_that_is_not_finished(data: Path) -> None:
    found = status(data)
    assert found["instances"] == {"Completed": 2, "Running": 1}
    assert found["open"] == {"activities": 0, "timers": 0, "messages": 0, "entity_messages": 0}
    assert found["oldest_unfinished"]["instance_id"] == "waiting"
    assert found["largest_history"]["instance_id"] in {"done", "the-child"}
    assert found["store_bytes"] > 0
    assert found["running_pid"] is None


async def test_the_status_names_the_process_that_runs_and_leaves_its_lock_alone(data: Path) -> None:
    import os

    with instance_lock(data):
        assert status(data)["running_pid"] == os.getpid()
        with pytest.raises(HostError, match="already_running"), instance_lock(data):
            pass
    assert status(data)["running_pid"] is None


async def test_an_export_replays_and_a_changed_one_is_refused(data: Path, tmp_path: Path) -> None:
    from local_host.durable.determinism import NonDeterministicError

    found = json.loads(json.dumps(export(data, "done")))
    assert found["is_complete"]
    assert [each["instance_id"] for each in found["executions"]] == ["done", "the-child"]
    child = found["executions"][1]
    assert child["durable_actions"] == {"activities": 1, "timers": 0, "sub_orchestrations": 0, "entity_messages": 0}
    (tmp_path / "history.json").write_text(json.dumps(found))
    recording = load(tmp_path / "history.json")[1]

    def same(context: Any) -> Any:
        return (yield context.call_activity("echo", "child"))

    def other(context: Any) -> Any:
        return (yield context.call_activity("echo", "somebody else"))

    assert replay(recording, same).ended is not None
    with pytest.raises(NonDeterministicError, match="recorded was"):
        replay(recording, other)


async def test_an_export_takes_along_what_is_named_after_the_instance_with_its_children(data: Path) -> None:
    engine = DurableEngine(family(), Storage(data / "durable.sqlite"), VirtualClock(START_AT))
    await engine.start()
    for instance_id in ("waiting.apart", "waitingroom"):
        await engine.start_new("waits", instance_id, None)
    await engine.stop()
    assert [each["instance_id"] for each in export(data, "waiting")["executions"]] == ["waiting", "waiting.apart"]


async def test_an_export_shares_the_store_with_a_host_that_writes(data: Path) -> None:
    engine = DurableEngine(family(), Storage(data / "durable.sqlite"), VirtualClock(START_AT))
    await engine.start()
    assert len(export(data, "waiting")["executions"]) == 1
    await engine.raise_event("waiting", "never", json.dumps("1"))
    snapshot = await engine.wait_for_end("waiting", 10)
    assert snapshot is not None
    assert snapshot.instance.status == "Completed"
    assert export(data, "waiting")["executions"][0]["status"] == "Completed"
    await engine.stop()


async def test_the_command_prints_lines_for_people_and_one_line_of_json(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["host", "--status", "--data", str(data)]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "not running" in shown
    assert "Completed 2, Running 1" in shown
    assert main(["host", "--export", "done", "--data", str(data), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["executions"][0]["name"] == "parent"


def test_a_folder_without_a_store_and_a_file_that_is_none_are_said_with_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["host", "--status", "--data", str(tmp_path), "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "host.no_store"
    assert not list(tmp_path.iterdir())
    (tmp_path / "durable.sqlite").write_text("this is no database, whatever its name says")
    assert main(["host", "--export", "x", "--data", str(tmp_path), "--json"]) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "host.store_unreadable"


async def test_an_unknown_id_is_said_with_a_code(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host", "--export", "nobody", "--data", str(data), "--json"]) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "host.no_instance"
