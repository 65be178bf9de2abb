"""Many readers of many logs, cut off at random and resuming with Last-Event-ID: each sees every event exactly once, in order.

Readers go through the API's own handler and parse what it sends. Writers have a database connection of their own, as another
process would: readers notice them by polling, or are woken through Redis.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from engine.adapters.redis import RedisWakeups
from engine.adapters.sql import Database, SqlEventLog, SqlRunStore
from engine.adapters.wakeups import Wakeups
from engine.domain.events import EventType, RunEventData, StepEventData, new_event
from engine.domain.status import RunStatus
from engine.ports.deps import AppSettings
from engine.ports.run_store import RunChange
from tests.support.redis_server import BINARY, SKIPPED, RedisServer
from tests.unit.triggers.world import World

READERS_OF_A_RUN = 10
DAILY = (6, 30)
THOROUGH = (50, 60)
"""Runs, and events of each: 60 readers every day, 500 thoroughly."""


@dataclass
class Reader:
    """An ``EventSource`` with a bad connection."""

    run_id: str
    token: str
    dice: random.Random
    seen: list[int] = field(default_factory=list)
    connections: int = 0

    async def read_all(self, world: World) -> None:
        """Until the log says that nothing will follow."""
        while await self._connected(world):
            pass

    async def _connected(self, world: World) -> bool:
        self.connections += 1
        last = {"last-event-id": str(self.seen[-1])} if self.seen else {}
        target = f"/api/runs/{self.run_id}/events"
        response = await world.open("GET", target, token=self.token, headers={"accept": "text/event-stream"} | last)
        if response.status == 204:
            return False
        assert response.status == 200
        patience = self.dice.choice([0, 1, 2, 3, 5, 8, 13, 1_000])
        async with aclosing(cast(Any, response.body)) as chunks:
            async for chunk in cast(AsyncIterator[bytes], chunks):
                cut = patience <= 0
                # What is cut off in the middle has not arrived.
                self._arrived(chunk[: self.dice.randrange(len(chunk))] if cut else chunk)
                patience -= 1
                if cut:
                    return True
        return True

    def _arrived(self, data: bytes) -> None:
        for block in data.decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if "data" in fields:
                assert json.loads(fields["data"])["seq"] == int(fields["id"])
                self.seen.append(int(fields["id"]))


@pytest.fixture(params=["polling", pytest.param("redis", marks=pytest.mark.redis)])
def wakeups(request: pytest.FixtureRequest) -> Iterator[tuple[Wakeups, Wakeups]]:
    """Of the readers and of the writers."""
    if request.param == "polling":
        yield Wakeups(), Wakeups()
        return
    if BINARY is None:
        pytest.skip(SKIPPED)
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        channels = RedisWakeups(server.url), RedisWakeups(server.url)
        for channel in channels:
            stack.callback(channel.close)
        yield channels


async def write(database: Database, world: World, run_id: str, count: int, dice: random.Random) -> int:
    """The events of one run in bursts, and its end. How many there are in the end."""
    events, runs = SqlEventLog(database, world.clock), SqlRunStore(database, world.clock)
    written = 0
    while written < count:
        burst = [
            new_event(EventType.STEP_STARTED, StepEventData(step_id=f"s{n}"), f"s{n}")
            for n in range(written, min(count, written + dice.randint(1, 6)))
        ]
        await events.append("contoso", run_id, burst)
        written += len(burst)
        await asyncio.sleep(dice.uniform(0, 0.05))
    end = [new_event(EventType.RUN_SUCCEEDED, RunEventData())]
    await runs.change("contoso", run_id, RunChange(status=RunStatus.SUCCEEDED), end)
    return len(await events.read("contoso", run_id, after_seq=0, limit=1_000))


async def read_and_write(wakeups: tuple[Wakeups, Wakeups], path: Path, runs: int, count: int) -> list[Reader]:
    world = World(streaming=True)
    url = f"sqlite:///{path / 'livoa.db'}"
    here, there = (Database(url, world.clock, wakeups=one) for one in wakeups)
    settings = AppSettings(environment="local", http_streaming=True, stream_limit_s=2.0, heartbeat_s=1.0)
    world.with_deps(runs=SqlRunStore(here, world.clock), events=SqlEventLog(here, world.clock), settings=settings)
    token = world.token()
    run_ids = [await world.submitted() for _ in range(runs)]
    readers = [
        Reader(run_id, token, random.Random(f"{run_id}/{number}"))
        for run_id in run_ids
        for number in range(READERS_OF_A_RUN)
    ]
    async with asyncio.timeout(100):
        writing = [write(there, world, run_id, count, random.Random(run_id)) for run_id in run_ids]
        *_, totals = await asyncio.gather(*(reader.read_all(world) for reader in readers), asyncio.gather(*writing))
    of_run = dict(zip(run_ids, totals, strict=True))
    for reader in readers:
        assert reader.seen == list(range(1, of_run[reader.run_id] + 1))
    assert all(total > count for total in totals)
    await here.dispose()
    await there.dispose()
    return readers


async def test_every_reader_sees_every_event_once_and_in_order(
    wakeups: tuple[Wakeups, Wakeups], tmp_path: Path
) -> None:
    readers = await read_and_write(wakeups, tmp_path, *DAILY)
    assert sum(reader.connections for reader in readers) > 3 * len(readers), "too few were cut off to show anything"


@pytest.mark.thorough
async def test_five_hundred_readers_of_fifty_runs_do_too(wakeups: tuple[Wakeups, Wakeups], tmp_path: Path) -> None:
    readers = await read_and_write(wakeups, tmp_path, *THOROUGH)
    assert len(readers) == 500
    assert sum(reader.connections for reader in readers) > 3 * len(readers)
