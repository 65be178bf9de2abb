"""The bus side of a worker: receives commands, settles each once the store knows who has its step, and runs them side by side.

A receiver of the SDK belongs to one coroutine, which receives and settles; the steps themselves run beside it. Nothing is
received without a free slot, so nothing waits in a worker that another could do. A queue with sessions is served by several
receivers, each with one session for a turn. It is let go when the turn is over, when all slots are taken, and when it is empty
while no other receiver of the queue is free for the next session: each new session costs a connection and a dozen round trips.
Whoever waits for a session gives its slot to others after a second, so no queue that is empty keeps one that is not waiting.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from bus_worker.step import Held, NothingToDo, Poison, Received, StepWorker
from engine.adapters.bus_settings import WorkerSettings
from engine.adapters.service_bus import BusConnection, BusMessage
from engine.domain.bus import PUT_OFF
from engine.domain.errors import LivoaError

_LOG = logging.getLogger("livoa.worker")

RECEIVE_S = 1.0
"""How long one look into a queue waits, and so how long a stop may go unnoticed."""
SHORTEST_LOOK_S = 0.1
"""How long at least, where many queues share few slots."""
ACCEPT_S = 20.0
"""How long the bus looks for a session that has something."""
GIVE_WAY_S = 1.0
"""For so long whoever waits for a session has a slot meanwhile; and for so long one that was found waits for a slot."""
TURN_S = 20.0
"""How long one session may keep a receiver while others wait; shorter than any lock."""
SETTLE_S = 10.0
TAKE_S = 15.0
"""A command whose step is not taken by then is put off, while its lock still holds: the store hangs."""
PUT_OFF_PAUSES_S = (5.0, 10.0, 20.0, 40.0, 60.0)
MAX_PUT_OFF = 120
"""How often a command comes again while the store cannot be reached: for about two hours in all."""
RETRY_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Between tries to reach a bus that is away."""
NOT_YET = 4
"""So many tries, about nine seconds, a bus may be late without a warning: a worker starts beside it."""


@dataclass(slots=True)
class _Slot:
    """The slot of a receiver that waits for a session: given way with after a moment, and taken again for what was found."""

    slots: asyncio.Semaphore
    has: bool = True

    def give_way(self) -> None:
        """Let others have it."""
        if self.has:
            self.has = False
            self.slots.release()

    async def again(self) -> bool:
        """Have it, or have it again. False when there is none soon: others may have one for what was found."""
        if not self.has:
            with suppress(TimeoutError):
                self.has = await asyncio.wait_for(self.slots.acquire(), GIVE_WAY_S)
        return self.has

    def hand_on(self) -> None:
        """Somebody else answers for it from here on."""
        self.has = False


@dataclass(slots=True)
class Service:
    """What a worker has under way. ``connected`` holds the queues that could be reached the last time that was tried."""

    connection: BusConnection
    worker: StepWorker
    settings: WorkerSettings
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    connected: set[str] = field(default_factory=set)
    running: dict[asyncio.Task[None], Held] = field(default_factory=dict)
    _late: set[asyncio.Task[None]] = field(default_factory=set)
    """Steps that a store which hangs may still give; each has a slot."""
    _accepting: Counter[str] = field(default_factory=Counter)
    """How many receivers of a queue wait for a session that has something."""
    _opening: set[asyncio.Task[None]] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.concurrency)

    @property
    def queues(self) -> tuple[str, ...]:
        """What it serves."""
        bus = self.connection.settings
        return self.settings.queues or (bus.commands_queue, *bus.tenant_queues.values())

    @property
    def receivers(self) -> int:
        """How many there are for each queue. Each has a slot while it looks, so together they are no more than there are slots,
        where that can be: those of queues that have nothing would keep all slots from one that has something."""
        return max(1, min(self.settings.receivers, self.settings.concurrency // len(self.queues)))

    @property
    def look_s(self) -> float:
        """How long one look into a queue without sessions waits. Shorter where there are more queues than slots, so that all have
        been looked into after about as long."""
        share = self.settings.concurrency / (self.receivers * len(self.queues))
        return max(SHORTEST_LOOK_S, RECEIVE_S * min(1.0, share))

    async def run(self) -> None:
        """Serve until ``stopping`` is set, then drain: steps end within the given time, or are handed back."""
        bus = self.connection.settings
        serve = self._serve_sessions if bus.sessions else self._serve_queue
        receivers = [
            asyncio.create_task(self._for_ever(queue, serve), name=f"{queue}/{number}")
            for queue in self.queues
            for number in range(self.receivers)
        ]
        try:
            await self.stopping.wait()
        finally:
            for task in self._opening:  # it waits for a session or for a bus, and holds nothing
                task.cancel()
            _, late = await asyncio.wait(receivers, timeout=2 * RECEIVE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*receivers, return_exceptions=True)
            await self._drain()

    async def _drain(self) -> None:
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        if self.running:
            _LOG.info("draining: %d steps under way", len(self.running))
            await asyncio.wait(set(self.running), timeout=self.settings.drain_s)
        left = dict(self.running)
        await asyncio.gather(*(self.worker.give_back(held) for held in left.values()))
        if left:
            await asyncio.wait(set(left), timeout=SETTLE_S)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _for_ever(self, queue: str, serve: Any) -> None:
        """Serve one queue with one receiver after another, whatever happens to the bus, the store or their libraries.

        Whatever is not caught here would leave a queue without a receiver in a worker that says it is well.
        """
        failures = 0
        while not self.stopping.is_set():
            try:
                await serve(queue)
                failures = 0
                continue
            except Exception as err:
                reason = err.code if isinstance(err, LivoaError) else type(err).__name__
            if queue in self.connected:
                _LOG.warning("queue lost: %s", reason, extra={"queue": queue})
            elif failures == 0:
                _LOG.info("queue not reached yet: %s", reason, extra={"queue": queue})
            elif failures == NOT_YET:
                _LOG.warning("queue not reached: %s", reason, extra={"queue": queue})
            self.connected.discard(queue)
            await self._pause(RETRY_PAUSES_S[min(failures, len(RETRY_PAUSES_S) - 1)])
            failures += 1

    async def _serve_queue(self, queue: str) -> None:
        """Until the bus fails or the worker stops: one receiver of a queue without sessions."""
        async with self._receiver(queue) as receiver:
            while await self._slot():
                await self._receive(queue, receiver, self.look_s)

    async def _serve_sessions(self, queue: str) -> None:
        """The next session that has something, for one turn."""
        from azure.servicebus import NEXT_AVAILABLE_SESSION
        from azure.servicebus.exceptions import OperationTimeoutError

        if not await self._slot():
            return
        opened, slot = False, _Slot(self._slots)
        timer = asyncio.get_running_loop().call_later(GIVE_WAY_S, slot.give_way)
        try:
            options = {"session_id": NEXT_AVAILABLE_SESSION, "max_wait_time": ACCEPT_S}
            async with self._receiver(queue, **options) as receiver:
                opened = True
                timer.cancel()
                if await slot.again():
                    slot.hand_on()  # the turn answers for it
                    await self._turn(queue, receiver)
        except OperationTimeoutError:
            if opened:
                raise
            self.connected.add(queue)  # that there is nothing to do is an answer too
        finally:
            timer.cancel()
            slot.give_way()

    async def _turn(self, queue: str, receiver: Any) -> None:
        """What is in one session, for a while. Comes with a slot, and leaves with none."""
        loop = asyncio.get_running_loop()
        over_at = loop.time() + TURN_S
        while True:
            received = await self._receive(queue, receiver, RECEIVE_S)
            if self.stopping.is_set() or loop.time() > over_at or self._slots.locked():
                return
            if not received and not self._accepting[queue]:
                return  # others may have something, and nobody looks
            await self._slots.acquire()

    @asynccontextmanager
    async def _receiver(self, queue: str, **options: Any) -> AsyncIterator[Any]:
        client = self.connection.client(retry_total=0)
        try:
            receiver = client.get_queue_receiver(queue, prefetch_count=self.settings.prefetch, **options)
            try:
                await self._open(queue, receiver)
                self.connected.add(queue)
                yield receiver
            finally:
                await _closed(receiver)
        finally:
            await _closed(client)

    async def _open(self, queue: str, receiver: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._opening.add(task)
        self._accepting[queue] += 1
        try:
            await receiver.__aenter__()
        finally:
            self._opening.discard(task)
            self._accepting[queue] -= 1

    async def _receive(self, queue: str, receiver: Any, look_s: float) -> bool:
        """Receive one command with a slot that was taken for it. False when there is none in time."""
        runs = False
        try:
            messages = await receiver.receive_messages(max_message_count=1, max_wait_time=look_s)
            if not messages:
                return False
            runs, settle = await self._begin(queue, receiver, messages[0])
            # Should this fail, the message comes again, and whoever receives it finds the step held.
            async with asyncio.timeout(SETTLE_S):
                await settle
            return True
        finally:
            if not runs:
                self._slots.release()

    async def _begin(self, queue: str, receiver: Any, message: Any) -> tuple[bool, Awaitable[None]]:
        """Take the step of a command. Whether it runs now (and gives its slot back by itself), and how to settle the message."""
        bus = self.connection.settings
        received = Received(_body(message), message.session_id if bus.sessions else None, bus.tenant_of(queue))
        taking = asyncio.create_task(self.worker.take(received))
        try:
            if not await _done_in(taking, TAKE_S):
                late = asyncio.create_task(self._take_late(taking))
                self._late.add(late)
                late.add_done_callback(self._late.discard)
                err = LivoaError("store.unavailable", "the store does not answer", status=503)
                return True, self._put_off(queue, receiver, message, err)
            taken = taking.result()
        except LivoaError as err:
            _LOG.warning("step not taken", extra={"queue": queue, "code": err.code})
            return False, self._put_off(queue, receiver, message, err)
        match taken:
            case Poison(code, words):
                _LOG.error("dead letter: %s", words, extra={"queue": queue, "code": code})
                return False, receiver.dead_letter_message(message, reason=code, error_description=words)
            case NothingToDo():
                return False, receiver.complete_message(message)
            case Held():
                self._carry_out(taken)
                return True, receiver.complete_message(message)

    async def _take_late(self, taking: asyncio.Task[Held | Poison | NothingToDo]) -> None:
        """See whether a store that hung has given the step after all: nobody else can have it then.

        The message was put off, so nothing else is lost when it has not.
        """
        runs = False
        try:
            if isinstance(taken := await taking, Held):
                self._carry_out(taken)
                runs = True
        except LivoaError as err:
            _LOG.warning("step not taken", extra={"code": err.code})
        finally:
            if not runs:
                self._slots.release()

    def _carry_out(self, held: Held) -> None:
        """Begin with a step that was taken with a slot, which is free when it has ended."""
        task = asyncio.create_task(self.worker.carry_out(held))
        self.running[task] = held
        task.add_done_callback(self._ended)

    async def _put_off(self, queue: str, receiver: Any, message: Any, err: LivoaError) -> None:
        """Let a command come again later, as a message of its own: that the store is away is no failed delivery of it.

        Given back, it would come at once, until its deliveries are used up. In the end it is a dead letter, with its reason.
        """
        times = _times_put_off(message) + 1
        if times > MAX_PUT_OFF:
            await receiver.dead_letter_message(message, reason=err.code, error_description=err.message)
            return
        properties = {
            str(_text(name)): str(_text(value)) for name, value in (message.application_properties or {}).items()
        }
        later = BusMessage(
            _body(message),
            f"{message.message_id}".removesuffix(f"~{times - 1}") + f"~{times}",
            subject=message.subject or "",
            session_id=message.session_id if self.connection.settings.sessions else None,
            properties=properties | {PUT_OFF: str(times)},
            delay_s=PUT_OFF_PAUSES_S[min(times, len(PUT_OFF_PAUSES_S)) - 1],
        )
        try:
            await self.connection.send(queue, later, timeout_s=SETTLE_S / 2)
        except LivoaError:
            await receiver.abandon_message(message)
        else:
            await receiver.complete_message(message)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self.running[task]
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("step broke off", exc_info=error)

    async def _slot(self) -> bool:
        """Wait for a free slot. False when the worker stops first."""
        while not self.stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._slots.acquire(), RECEIVE_S)
                return True
        return False

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)


async def _done_in(task: asyncio.Task[Any], seconds: float) -> bool:
    """Whether it has ended by then. Whoever is cancelled meanwhile cancels it."""
    try:
        return bool((await asyncio.wait({task}, timeout=seconds))[0])
    except asyncio.CancelledError:
        task.cancel()
        raise


def _times_put_off(message: Any) -> int:
    """What the message says of itself; anybody may have written it, so it is bounded and only shortens its life."""
    said = {_text(name): _text(value) for name, value in (message.application_properties or {}).items()}.get(
        PUT_OFF, "0"
    )
    return min(int(said), MAX_PUT_OFF) if re.fullmatch(r"[0-9]{1,4}", said) else 0


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _body(message: Any) -> bytes:
    """The bytes of a message whatever its sections; what is no data becomes something that is no command."""
    try:
        return b"".join(message.body)
    except (TypeError, ValueError):
        return b""


async def _closed(handle: Any) -> None:
    with suppress(Exception):
        async with asyncio.timeout(SETTLE_S):
            await handle.close()
