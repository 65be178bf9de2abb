"""The bus side of a worker, without a bus: what a queue's receiver must survive."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from bus_worker import receiving
from bus_worker.receiving import Service
from engine.adapters.bus_settings import WorkerSettings


@pytest.mark.parametrize("error", [AttributeError("a client's own bug"), KeyError("x"), RuntimeError("closed")])
async def test_whatever_goes_wrong_a_queue_keeps_its_receiver(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "RETRY_PAUSES_S", (0.0,))
    service = Service(cast(Any, None), cast(Any, None), WorkerSettings())
    service.connected.add("step-commands")
    seen = []

    async def serve(queue: str) -> None:
        seen.append(queue in service.connected)
        if len(seen) == 1:
            raise error
        service.stopping.set()

    async with asyncio.timeout(10):
        await service._for_ever("step-commands", serve)
    assert seen == [True, False]  # and meanwhile the probe does not say that all is well


@pytest.mark.parametrize(
    ("was_there", "failures", "levels"),
    [
        (False, 4, ["INFO"]),
        (False, 9, ["INFO", "WARNING"]),
        (True, 3, ["WARNING"]),
        (True, 9, ["WARNING", "WARNING"]),
    ],
)
async def test_a_bus_that_comes_a_little_later_than_its_worker_is_no_warning_and_one_that_is_away_is(
    was_there: bool,
    failures: int,
    levels: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "livoa.worker")
    monkeypatch.setattr(receiving, "RETRY_PAUSES_S", (0.0,))
    service = Service(cast(Any, None), cast(Any, None), WorkerSettings())
    service.connected |= {"step-commands"} if was_there else set()
    tries = iter(range(failures))

    async def serve(queue: str) -> None:
        if next(tries, None) is not None:
            raise ConnectionError
        service.stopping.set()

    async with asyncio.timeout(10):
        await service._for_ever("step-commands", serve)
    assert [record.levelname for record in caplog.records] == levels
