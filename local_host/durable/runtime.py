"""Runs episodes: one actor per instance, one episode at a time, one transaction per episode.

An actor collects completions (memory) and messages (durable inbox), and drives episodes until nothing is left to do. Its
`Execution` may be evicted at any time; it is rebuilt from history. Deliberately no client operations here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from local_host.durable.admission import Admission, Bounds
from local_host.durable.clock import Clock
from local_host.durable.determinism import NonDeterministicError
from local_host.durable.entities import EntityRunner
from local_host.durable.episodes import Episode, Mail, missing_function, time_of
from local_host.durable.execution import BrokenReplyError, Execution
from local_host.durable.executor import TimerLimits
from local_host.durable.functions import DurableFunctions
from local_host.durable.history import Completion, EventRaised
from local_host.durable.protocol import ProtocolError, to_stamp
from local_host.durable.records import (
    CommitResult,
    EpisodeWrites,
    InboxItem,
    commit_episode,
    get_instance,
    load_history,
    load_inbox,
    load_unfinished,
)
from local_host.durable.storage import Storage
from local_host.durable.work import ActivityPool, HttpCaller, TimerService

_LOG = logging.getLogger("local_host.durable")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine runs.

    `strict` numbers as the Durable Task Framework does and fails what Azure would fail. `warm` keeps generators alive between
    episodes; with `cold_checks` an instance is nevertheless rebuilt by a full replay after its 16th, 128th, 1,024th … episode,
    so that non-determinism cannot hide (all of these together are hardly more than one replay of the whole). `max_batch` bounds
    completions per episode (tests use 1). `commit_retry_s` is the pause after a failed commit. `timer_limits` makes the SDK
    split long timers as it does on Azure Storage; without it a timer may be of any length. `keep_ended_s` is how long ended
    instances are kept (`retention.py`), None for ever. `bounds` say when the host is full (`admission.py`).
    """

    strict: bool = True
    warm: bool = True
    cold_checks: bool = True
    max_warm_instances: int = 1000
    max_concurrent_activities: int = 64
    max_batch: int | None = None
    commit_retry_s: float = 1.0
    default_version: str | None = None
    timer_limits: TimerLimits | None = None
    keep_ended_s: float | None = None
    bounds: Bounds = field(default_factory=Bounds)


def _is_checked_at(chunk: int) -> bool:
    """16, and on from there by eights."""
    return chunk >= 16 and chunk & (chunk - 1) == 0 and (chunk.bit_length() - 5) % 3 == 0


@dataclass(slots=True)
class Actor:
    """Mailbox and cached execution of one instance. `completions` pair an execution id with the event."""

    instance_id: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    completions: list[tuple[str, Completion]] = field(default_factory=list)
    inbox: dict[int, InboxItem] = field(default_factory=dict)
    execution: Execution | None = None
    unreplayable: str | None = None
    task: asyncio.Task[None] | None = None
    poked: bool = False

    def evict(self) -> None:
        """Forget everything that can be read back from storage."""
        self.execution, self.unreplayable = None, None
        self.inbox.clear()

    @property
    def is_idle(self) -> bool:
        """Nothing would be lost by dropping the actor."""
        return self.task is None and not self.completions and not self.lock.locked()


class Runtime:
    """All actors, and what runs on their behalf."""

    def __init__(
        self,
        functions: DurableFunctions,
        storage: Storage,
        clock: Clock,
        options: EngineOptions,
        http: HttpCaller,
    ) -> None:
        self.functions, self.storage, self.clock, self.options = functions, storage, clock, options
        concurrency = options.max_concurrent_activities
        self.admission = Admission(options.bounds, lambda: self.pool.running)
        self.pool = ActivityPool(functions, http, clock, self.deliver, concurrency, self.admission.look)
        self.timers = TimerService(clock, self.deliver)
        self.entities = EntityRunner(functions, storage, clock, self.post)
        self.episodes = 0
        self._actors: OrderedDict[str, Actor] = OrderedDict()
        self._driving = 0
        self._stopping = False
        self._watchers: dict[str, list[asyncio.Future[None]]] = {}

    async def recover(self) -> None:
        """Continue what an earlier process left unfinished."""
        unfinished = await self.storage.read(load_unfinished)
        self.admission.restore(unfinished.pending)
        for timer in unfinished.timers:
            self.timers.arm(timer)
        for work in unfinished.work:
            self.pool.dispatch(work)
        for entity_id in unfinished.entities:
            self.entities.wake(entity_id)
        for instance_id in unfinished.instances:
            self.wake(instance_id)

    async def stop(self, drain_s: float) -> None:
        """Let running activities finish for `drain_s`, then stop; everything unfinished is on disk."""
        self.timers.stop()
        await self.pool.drain(drain_s)
        self._stopping = True
        await asyncio.gather(*[a.task for a in self._actors.values() if a.task], return_exceptions=True)
        await self.entities.stop()
        for futures in self._watchers.values():
            for future in futures:
                future.cancel()

    @property
    def active_jobs(self) -> int:
        """Episodes, entity drains and activities under way; 0 means only time or a message can change anything."""
        return self._driving + self.entities.running + self.pool.running

    def actor(self, instance_id: str) -> Actor:
        """The actor of that id, made on demand; the least recently used idle ones are dropped."""
        found = self._actors.get(instance_id)
        if found is None:
            found = self._actors[instance_id] = Actor(instance_id)
            self._trim()
        else:
            self._actors.move_to_end(instance_id)
        return found

    def _trim(self) -> None:
        excess = len(self._actors) - self.options.max_warm_instances
        if excess <= 0:
            return
        # Only the oldest few are looked at: when all of them are busy, the bound gives way instead of the work.
        for key in list(islice(self._actors, excess + 32)):
            if excess > 0 and self._actors[key].is_idle and key != next(reversed(self._actors)):
                del self._actors[key]
                excess -= 1

    def deliver(self, instance_id: str, execution_id: str, completion: Completion) -> None:
        """A completion from the pool or a timer; in memory only, its row is the durable part."""
        self.actor(instance_id).completions.append((execution_id, completion))
        self.wake(instance_id)

    def post(self, instance_id: str, item: InboxItem) -> None:
        """A durable message was stored."""
        actor = self.actor(instance_id)
        if actor.execution is not None:
            actor.inbox[item.id] = item
        self.wake(instance_id)

    def wake(self, instance_id: str) -> None:
        """Drive the instance as long as it has something to do."""
        actor = self.actor(instance_id)
        actor.poked = True
        if actor.task is None and not self._stopping:
            self._driving += 1
            actor.task = asyncio.get_running_loop().create_task(self._drive(actor))

    async def _drive(self, actor: Actor) -> None:
        try:
            while actor.poked and not self._stopping:
                actor.poked = False
                # What else becomes ready in this turn of the loop joins the same episode.
                await asyncio.sleep(0)
                async with actor.lock:
                    while not self._stopping and await self._step(actor):
                        pass
        except Exception:
            _LOG.exception("Instance %s: the episode failed and will be tried again", actor.instance_id)
            actor.evict()
            self.clock.call_after(self.options.commit_retry_s, lambda: self.wake(actor.instance_id))
        finally:
            actor.task = None
            self._driving -= 1
            if actor.poked and not self._stopping:
                self.wake(actor.instance_id)

    async def _step(self, actor: Actor) -> bool:
        """One episode, if there is anything to do; the actor's lock is held."""
        execution = await self._load(actor)
        if execution is None or execution.instance.suspended:
            # A finished instance ignores what still arrives; a suspended one keeps it for later.
            if execution is None:
                actor.completions.clear()
            self.admission.remove(actor.instance_id)
            return False
        mail = self._take_mail(actor, execution)
        if mail is None:
            return False
        self.episodes += 1
        at, options = time_of(execution.instance, mail, to_stamp(self.clock.now())), self.options
        episode = Episode(execution, self.functions, at, options.strict, options.default_version)
        execution_id = execution.instance.execution_id
        try:
            unreplayable = actor.unreplayable
            writes = episode.run(mail) if unreplayable is None else episode.fail(mail, unreplayable)
            result = await self.storage.write(lambda connection: commit_episode(connection, writes))
        except BaseException:
            # The completions are only in memory; their work rows still exist, but nothing would run them again.
            actor.completions[:0] = [(execution_id, completion) for completion in mail.completions]
            actor.evict()
            raise
        for item in mail.inbox:
            actor.inbox.pop(item.id, None)
        self._after_commit(actor, episode, writes, result)
        return True

    async def _load(self, actor: Actor) -> Execution | None:
        """The current execution; None when the instance is gone or finished."""
        if actor.execution is not None:
            return actor.execution
        instance_id = actor.instance_id
        item, (events, chunk), inbox = await self.storage.read(
            lambda c: (get_instance(c, instance_id), load_history(c, instance_id), load_inbox(c, instance_id))
        )
        if item is None or item.is_terminal:
            return None
        actor.inbox = {message.id: message for message in inbox}
        execution = Execution(item, self._wrapper(item.name), self.options.warm, self.options.timer_limits)
        execution.custom_status_json = item.custom_status_json
        actor.unreplayable = None
        try:
            execution.restore(events, chunk)
        except (NonDeterministicError, ProtocolError, BrokenReplyError) as err:
            actor.unreplayable = str(err)
        actor.execution = execution
        return execution

    def _wrapper(self, name: str) -> Callable[[str], str]:
        """The orchestrator; one that is gone since the instance was started fails it with the extension's words."""
        try:
            return self.functions.orchestrator(name)
        except KeyError:
            message = missing_function(name, "orchestrator")

            def missing(_: str) -> str:
                raise RuntimeError(message)

            return missing

    def _take_mail(self, actor: Actor, execution: Execution) -> Mail | None:
        current = execution.instance.execution_id
        matching = [event for execution_id, event in actor.completions if execution_id == current]
        limit = self.options.max_batch or len(matching)
        mail = Mail(matching[:limit], sorted(actor.inbox.values(), key=lambda item: item.id))
        actor.completions = [(current, event) for event in matching[limit:]]
        is_due = (
            execution.is_new
            or actor.unreplayable is not None
            or execution.has_work_to_write
            or bool(mail.completions)
            or any(self._is_deliverable(item, execution) for item in mail.inbox)
        )
        if is_due:
            return mail
        for item in mail.inbox:
            if item.seen_at is None:
                # Held back until a wait for it is listed; where it would have stood decides about carry-over.
                actor.inbox[item.id] = InboxItem(item.id, item.execution_id, item.event, len(execution.events))
        return None

    def _is_deliverable(self, item: InboxItem, execution: Execution) -> bool:
        if item.execution_id is not None or not isinstance(item.event, EventRaised):
            return True
        return execution.ended is not None or execution.wanted_events(item.event.name) > 0

    def _after_commit(self, actor: Actor, episode: Episode, writes: EpisodeWrites, result: CommitResult) -> None:
        item = writes.instance
        self.admission.remove(item.instance_id)
        actor.inbox.update((held.id, held) for held in episode.held)
        if writes.reset or item.is_terminal:
            actor.execution = None
            actor.inbox.clear()
            self.timers.forget(item.instance_id)
            self.pool.forget_waiting(item.instance_id)
        elif self.options.cold_checks and _is_checked_at(writes.chunk):
            actor.evict()
        for timer in writes.timers:
            self.timers.arm(timer)
        for work in writes.work:
            self.pool.dispatch(work)
        for child in writes.children:
            if child.instance_id not in result.refused_children:
                self.actor(child.instance_id).evict()
                self.wake(child.instance_id)
        for entity in result.entity_items:
            self.entities.wake(entity.entity_id)
        for instance_id, messages in result.inbox.items():
            for message in messages:
                self.post(instance_id, message)
        if writes.reset:
            self.wake(item.instance_id)
        if item.is_terminal:
            self.announce_end(item.instance_id)

    def announce_end(self, instance_id: str) -> None:
        """Wake whoever waits for the end of this instance."""
        for future in self._watchers.pop(instance_id, []):
            if not future.done():
                future.set_result(None)

    async def wait_for_end(self, instance_id: str, timeout_s: float | None) -> None:
        """Return when the instance has ended, or after `timeout_s` of real time (TimeoutError)."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(instance_id, []).append(future)
        try:
            item = await self.storage.read(lambda c: get_instance(c, instance_id))
            if item is None or item.is_terminal:
                return
            await asyncio.wait_for(future, timeout_s)
        finally:
            waiting = self._watchers.get(instance_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._watchers.pop(instance_id, None)
