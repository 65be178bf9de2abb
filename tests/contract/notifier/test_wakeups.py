"""What every way of waking readers promises: at once within a process, across processes where there is Redis, never an error."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.adapters import wakeups as polling
from engine.adapters.memory import FixedClock
from engine.adapters.redis import RedisWakeups
from engine.adapters.redis import wakeups as redis_wakeups
from engine.adapters.sql import Database, SqlEventLog, SqlRunStore
from engine.adapters.wakeups import Wakeups
from tests.contract.stores.builders import event, run
from tests.support.redis_server import BINARY, SKIPPED, RedisServer

KEY = ("contoso", "run-1")
GIVEN = os.environ.get("LIVOA_TEST_REDIS_URL")
"""A server that somebody started for the tests; those that stop it, or listen in, start one of their own."""
needs_redis = pytest.mark.skipif(GIVEN is None and BINARY is None, reason=SKIPPED)
needs_its_own = pytest.mark.skipif(BINARY is None, reason=SKIPPED)
REDIS = pytest.param("redis", marks=[pytest.mark.redis, needs_redis])


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def redis(request: pytest.FixtureRequest) -> Iterator[Callable[..., RedisWakeups]]:
    """Opens the channel once more, as another process would."""
    with ExitStack() as stack:
        channel = f"livoa:test:{secrets.token_hex(6)}"

        def another(own: RedisServer | None = None) -> RedisWakeups:
            url = own.url if own is not None else GIVEN or request.getfixturevalue("server").url
            opened = RedisWakeups(url, channel=channel)
            stack.callback(opened.close)
            return opened

        yield another


@pytest.fixture(params=["memory", REDIS])
def wakeups(request: pytest.FixtureRequest) -> Wakeups:
    if request.param == "memory":
        return Wakeups()
    opened: RedisWakeups = request.getfixturevalue("redis")()
    return opened


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in ((polling, ("FIRST_POLL_S", "LONGEST_POLL_S")), (redis_wakeups, ("LONGEST_POLL_S",))):
        for name in names:
            monkeypatch.setattr(module, name, 1_000.0)


class Fact:
    """Something to wait for."""

    def __init__(self) -> None:
        self.true = False
        self.asked = 0

    async def holds(self) -> bool:
        self.asked += 1
        return self.true


async def heard(*channels: RedisWakeups) -> None:
    """Until messages of others arrive."""
    for channel in channels:
        channel.notify("begin")
    await asyncio.to_thread(until, lambda: all(channel.is_heard for channel in channels))


def until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


@pytest.mark.usefixtures("no_polling")
async def test_a_notification_wakes_all_who_wait_for_the_key_and_nobody_else(wakeups: Wakeups) -> None:
    if isinstance(wakeups, RedisWakeups):
        await heard(wakeups)
    fact, other = Fact(), Fact()
    waiting = [asyncio.create_task(wakeups.wait(KEY, fact.holds, 60)) for _ in range(3)]
    elsewhere = asyncio.create_task(wakeups.wait("other", other.holds, 60))
    await asyncio.sleep(0.05)
    asked = other.asked
    fact.true = True
    wakeups.notify(KEY)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [True] * 3
    assert other.asked == asked
    elsewhere.cancel()


@pytest.mark.usefixtures("no_polling")
async def test_a_notification_may_come_from_any_thread(wakeups: Wakeups) -> None:
    fact = Fact()
    waiting = asyncio.create_task(wakeups.wait(KEY, fact.holds, 60))
    await asyncio.sleep(0.05)
    fact.true = True
    threading.Thread(target=wakeups.notify, args=(KEY,)).start()
    async with asyncio.timeout(5):
        assert await waiting


async def test_time_ends_a_wait(wakeups: Wakeups) -> None:
    assert not await wakeups.wait(KEY, Fact().holds, 0.05)


async def test_waiters_that_are_gone_leave_nothing_behind(wakeups: Wakeups) -> None:
    waiting = [asyncio.create_task(wakeups.wait((KEY, n % 2), Fact().holds, 60)) for n in range(10)]
    await asyncio.sleep(0.05)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert wakeups._waiting == {}
    if isinstance(wakeups, RedisWakeups):
        assert wakeups._by_digest == {}


@needs_redis
@pytest.mark.redis
@pytest.mark.usefixtures("no_polling")
async def test_a_writer_of_another_process_wakes_a_reader_at_once(redis: Callable[..., RedisWakeups]) -> None:
    here, there = redis(), redis()
    await heard(here, there)
    fact = Fact()
    waiting = asyncio.create_task(here.wait(KEY, fact.holds, 60))
    await asyncio.sleep(0.05)
    fact.true = True
    there.notify(KEY)
    async with asyncio.timeout(5):
        assert await waiting


@needs_its_own
@pytest.mark.redis
async def test_without_redis_readers_poll_and_with_it_again_they_are_woken(
    server: RedisServer,
    redis: Callable[..., RedisWakeups],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.WARNING)
    here, there = redis(server), redis(server)
    await heard(here, there)
    assert here._longest_poll_s() == redis_wakeups.LONGEST_POLL_S
    server.stop()
    fact = Fact()
    waiting = asyncio.create_task(here.wait(KEY, fact.holds, 60))
    await asyncio.to_thread(until, lambda: not here.is_heard)
    assert here._longest_poll_s() == polling.LONGEST_POLL_S
    started, fact.true = time.monotonic(), True
    there.notify(KEY)
    assert await waiting
    assert time.monotonic() - started < 2 * polling.LONGEST_POLL_S + 1, "polling is as often as without Redis"
    server.start()
    await asyncio.to_thread(until, lambda: here.is_heard and there.is_heard)
    monkeypatch.setattr(polling, "FIRST_POLL_S", 1_000.0)
    monkeypatch.setattr(redis_wakeups, "LONGEST_POLL_S", 1_000.0)
    fact = Fact()
    waiting = asyncio.create_task(here.wait(KEY, fact.holds, 60))
    await asyncio.sleep(0.05)
    fact.true = True
    there.notify(KEY)
    async with asyncio.timeout(5):
        assert await waiting
    assert "redis cannot be heard" in caplog.text
    assert str(server.port) not in caplog.text, "the address may hold a password"


async def test_redis_that_was_never_there_is_no_error() -> None:
    wakeups = RedisWakeups(RedisServer().url)  # its address, but it was not started
    fact = Fact()
    waiting = asyncio.create_task(wakeups.wait(KEY, fact.holds, 30))
    await asyncio.sleep(0.05)
    for _ in range(100):
        wakeups.notify("something")
    fact.true = True
    async with asyncio.timeout(5):
        assert await waiting
    wakeups.close()


async def test_an_outbox_that_is_full_drops_and_neither_waits_nor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_wakeups, "MAX_OUTBOX", 5)
    monkeypatch.setattr(RedisWakeups, "_start", lambda self: None)
    wakeups = RedisWakeups("redis://127.0.0.1:1/0")
    started = time.monotonic()
    for number in range(1_000):
        wakeups.notify(number)
    assert wakeups._outbox.qsize() == 5
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 50, b"a" * 1_000, b"origin unknown", 7, None])
async def test_a_message_that_makes_no_sense_is_ignored(data: object) -> None:
    RedisWakeups("redis://127.0.0.1:1/0")._told(data)


@needs_its_own
@pytest.mark.redis
async def test_what_stands_on_the_channel_names_no_tenant_and_no_run(
    server: RedisServer, redis: Callable[..., RedisWakeups]
) -> None:
    from redis import Redis

    client = Redis.from_url(server.url)
    channel = client.pubsub(ignore_subscribe_messages=True)
    wakeups = redis(server)
    channel.subscribe(wakeups._channel)
    wakeups.notify(KEY)
    said = b""
    until = time.monotonic() + 10
    while not said and time.monotonic() < until:
        message = await asyncio.to_thread(channel.get_message, timeout=0.2)
        said = message["data"] if message else b""
    client.close()
    assert len(said.split()) == 2
    assert b"contoso" not in said
    assert b"run-1" not in said


@needs_redis
@pytest.mark.redis
@pytest.mark.usefixtures("no_polling")
async def test_an_event_written_by_another_process_ends_a_wait_at_once(
    redis: Callable[..., RedisWakeups], tmp_path: Path
) -> None:
    clock, url = FixedClock(), f"sqlite:///{tmp_path / 'livoa.db'}"
    channels = [redis(), redis()]
    await heard(*channels)
    here, there = (Database(url, clock, wakeups=channel) for channel in channels)
    await SqlRunStore(here, clock).create(run(), [], None)
    waiting = asyncio.create_task(SqlEventLog(here, clock).wait("contoso", "run-1", after_seq=0, timeout_s=60))
    await asyncio.sleep(0.1)
    await SqlEventLog(there, clock).append("contoso", "run-1", [event()])
    async with asyncio.timeout(5):
        assert await waiting
    await here.dispose()
    await there.dispose()


@needs_its_own
@pytest.mark.redis
async def test_a_reader_misses_and_repeats_nothing_while_redis_goes_and_comes_back(
    server: RedisServer, redis: Callable[..., RedisWakeups], tmp_path: Path
) -> None:
    """The store has the events, Redis only says that there are some: without it they come later, and all of them."""
    clock, url = FixedClock(), f"sqlite:///{tmp_path / 'livoa.db'}"
    channels = [redis(server), redis(server)]
    await heard(*channels)
    here, there = (Database(url, clock, wakeups=channel) for channel in channels)
    await SqlRunStore(here, clock).create(run(), [], None)
    seen: list[int] = []

    async def follow() -> None:
        log = SqlEventLog(here, clock)
        while len(seen) < 90:
            await log.wait("contoso", "run-1", after_seq=len(seen), timeout_s=30)
            seen.extend(one.seq for one in await log.read("contoso", "run-1", after_seq=len(seen), limit=7))

    following = asyncio.create_task(follow())
    writer = SqlEventLog(there, clock)
    for number in range(90):
        if number == 30:
            server.stop()
        if number == 60:
            server.start()
        await writer.append("contoso", "run-1", [event(f"k{number}")])
    async with asyncio.timeout(60):
        await following
    assert seen == list(range(1, 91))
    await here.dispose()
    await there.dispose()
