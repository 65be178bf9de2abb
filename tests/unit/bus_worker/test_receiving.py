"""The bus side of a worker, without a bus: what a queue's receiver must survive."""

from __future__ import annotations

import asyncio
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
