"""Ended instances are forgotten after their time, and nothing that is still needed is."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from local_host.__main__ import parse
from local_host.durable.retention import BITE, EVERY_S, Retention
from tests.unit.local_host.durable_app import Bench, PlainApp, running

DAY_S = 86_400.0


@pytest.fixture
def app() -> PlainApp:
    app = PlainApp()

    @app.orchestration
    def short(context: Any) -> Any:
        return context.get_input()

    @app.orchestration
    def waits(context: Any) -> Any:
        yield context.call_sub_orchestrator("short", 1, "the-child")
        yield context.wait_for_external_event("go")

    return app


def left(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "hub.db")) as connection:
        instances = {row[0] for row in connection.execute("SELECT instance_id FROM instances")}
        histories = {row[0] for row in connection.execute("SELECT instance_id FROM history")}
    assert histories <= instances
    return instances


async def pass_hours(bench: Bench, hours: int) -> None:
    """Let time pass and every round of the retention come to its end, which the engine does not count as work."""
    for _ in range(hours):
        bench.clock.advance_s(EVERY_S)
        await bench.settle()
        retention = bench.engine._retention
        assert retention is not None
        assert retention._task is not None
        await retention._task


async def test_ended_instances_go_after_their_time_and_running_ones_stay(app: PlainApp, tmp_path: Path) -> None:
    async with running(app, tmp_path, keep_ended_s=DAY_S) as bench:
        await bench.start("waits", None, "parent")
        await bench.run("short", 1, "old")
        bench.clock.advance_s(DAY_S - EVERY_S)
        await bench.run("short", 1, "young")
        assert left(tmp_path) == {"parent", "the-child", "old", "young"}
        await pass_hours(bench, 3)
        # The child ended when `old` did, but its parent still runs and may be rewound.
        assert left(tmp_path) == {"parent", "the-child", "young"}
        assert await bench.engine.status("old") is None
        await bench.engine.raise_event("parent", "go", '"1"')
        await bench.settle()
        await pass_hours(bench, 20)
        assert "parent" in left(tmp_path)
        await pass_hours(bench, 6)
        assert left(tmp_path) == set()


async def test_without_a_period_everything_is_kept(app: PlainApp, tmp_path: Path) -> None:
    async with running(app, tmp_path) as bench:
        await bench.run("short", 1, "old")
        bench.clock.advance_s(400 * DAY_S)
        await bench.settle()
        assert left(tmp_path) == {"old"}


async def test_a_backlog_larger_than_a_bite_goes_in_one_round_and_its_ids_can_be_used_again(
    app: PlainApp, tmp_path: Path
) -> None:
    async with running(app, tmp_path) as bench:
        for number in range(BITE + 5):
            await bench.start("short", number, f"run-{number}")
        await bench.settle()
        retention = Retention(bench.storage, bench.clock, bench.engine.purge, 10.0)
        assert await retention.purge_ended() == 0
        bench.clock.advance_s(11)
        assert await retention.purge_ended() == BITE + 5
        assert left(tmp_path) == set()
        assert await bench.run("short", 7, "run-3") == 7


async def test_a_store_that_fails_once_is_asked_again(app: PlainApp, tmp_path: Path) -> None:
    async with running(app, tmp_path) as bench:
        await bench.run("short", 1, "old")
        bench.clock.advance_s(100)
        asked: list[str] = []

        async def purge(instance_id: str) -> int:
            asked.append(instance_id)
            if len(asked) == 1:
                raise OSError("disk full")
            return await bench.engine.purge(instance_id)

        retention = Retention(bench.storage, bench.clock, purge, 10.0)
        retention.start()
        await bench.settle()
        for _ in range(50):
            if left(tmp_path) == set():
                break
            bench.clock.advance_s(EVERY_S)
            await asyncio.sleep(0.01)
        assert asked[:2] == ["old", "old"]
        assert left(tmp_path) == set()
        await retention.stop()


@pytest.mark.parametrize("days", ["0", "-1", "nan", "40000"])
def test_a_period_that_is_none_is_wrong_usage(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["--keep-days", days])
    assert "--keep-days" in capsys.readouterr().err
