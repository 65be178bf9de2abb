"""Things that run between episodes: activities (and durable HTTP calls) and timers.

Both only report; the row that vouches for a piece of work is deleted by the episode that consumes its completion, so after a
crash it runs again (at least once). Deliberately no retry here: retries are part of the protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable

from local_host.durable.clock import Alarm, Clock
from local_host.durable.episodes import activity_failure_reason, failure_details, missing_function
from local_host.durable.functions import ActivityError, DurableFunctions
from local_host.durable.history import Completion, TaskCompleted, TaskFailed, TimerFired
from local_host.durable.protocol import from_stamp, to_stamp
from local_host.durable.records import TimerItem, WorkItem

_LOG = logging.getLogger("local_host.durable")

MAX_FAILURE_TEXT = 32_768
"""Longest failure message kept, in characters: very long ones have hung instances of the real host."""

Deliver = Callable[[str, str, Completion], None]
"""(instance id, execution id, completion)."""

HttpCaller = Callable[[str], Awaitable[str]]
"""Durable HTTP: request JSON in, response JSON out."""

_Key = tuple[str, str, int]


class ActivityPool:
    """Runs work items with bounded concurrency; each at most once at a time. `ended()` is told of each that is over."""

    def __init__(
        self,
        functions: DurableFunctions,
        http: HttpCaller,
        clock: Clock,
        deliver: Deliver,
        concurrency: int,
        ended: Callable[[], None],
    ) -> None:
        self._functions, self._http, self._clock, self._deliver = functions, http, clock, deliver
        self._ended = ended
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._waiting: set[_Key] = set()
        self._is_closing = False
        self._by_instance: defaultdict[str, set[_Key]] = defaultdict(set)

    @property
    def running(self) -> int:
        """Items dispatched and not yet reported."""
        return len(self._tasks)

    def dispatch(self, item: WorkItem) -> None:
        """Run the item soon; ignored while the same item is under way, and when stopping (its row is kept)."""
        key = (item.instance_id, item.execution_id, item.task_id)
        if self._is_closing or key in self._tasks:
            return
        self._waiting.add(key)
        self._by_instance[item.instance_id].add(key)
        task = asyncio.get_running_loop().create_task(self._run(key, item))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._forget_key(key))

    def forget_waiting(self, instance_id: str) -> None:
        """Drop items of an instance that have not started; running ones finish and are ignored, as in Azure."""
        for key in list(self._by_instance.get(instance_id, ())):
            if key in self._waiting:
                self._tasks[key].cancel()

    async def drain(self, timeout_s: float) -> None:
        """Wait for running items, then cancel what is left: their rows make them run again later."""
        self._is_closing = True
        for key in list(self._waiting):
            self._tasks[key].cancel()
        tasks = list(self._tasks.values())
        if tasks and timeout_s > 0:
            await asyncio.wait(tasks, timeout=timeout_s)
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_key(self, key: _Key) -> None:
        self._tasks.pop(key, None)
        self._waiting.discard(key)
        keys = self._by_instance[key[0]]
        keys.discard(key)
        if not keys:
            del self._by_instance[key[0]]
        self._ended()

    async def _run(self, key: _Key, item: WorkItem) -> None:
        async with self._slots:
            self._waiting.discard(key)
            completion = await self._perform(item)
        self._deliver(item.instance_id, item.execution_id, completion)

    async def _perform(self, item: WorkItem) -> Completion:
        try:
            result = await self._call(item)
        except ActivityError as err:
            return self._failed(item, err.type_name, err.message, err.details)
        except KeyError:
            message = missing_function(item.name, "activity")
            return self._failed(item, "FunctionNotFound", message, "")
        except Exception as err:
            _LOG.exception("Activity %s failed outside of user code", item.name)
            return self._failed(item, type(err).__name__, str(err), "")
        return TaskCompleted(to_stamp(self._clock.now()), item.task_id, result)

    async def _call(self, item: WorkItem) -> str | None:
        if item.kind == "http":
            return await self._http(item.input or "{}")
        return await self._functions.call_activity(
            item.name, item.input, instance_id=item.instance_id, task_id=item.task_id
        )

    def _failed(self, item: WorkItem, type_name: str, message: str, stack: str) -> TaskFailed:
        message = message[:MAX_FAILURE_TEXT]
        reason = activity_failure_reason(item.name, type_name, message)
        details = failure_details(type_name, message, stack)
        return TaskFailed(to_stamp(self._clock.now()), item.task_id, reason, details)


class TimerService:
    """Arms durable timers, cancelled ones too: the framework delivers their TimerFired all the same.

    An instance's time never goes back, but the clock may (`episodes.time_of`). A timer then rings after what its instance had
    left to wait, though the clock says that it is not yet time.
    """

    def __init__(self, clock: Clock, deliver: Deliver) -> None:
        self._clock, self._deliver = clock, deliver
        self._alarms: defaultdict[str, dict[_Key, Alarm]] = defaultdict(dict)

    def arm(self, item: TimerItem) -> None:
        """Ring at `fire_at`, or soon if that has passed."""
        key = (item.instance_id, item.execution_id, item.task_id)
        if key not in self._alarms[item.instance_id]:
            due_at = from_stamp(item.fire_at)
            within_s = (due_at - from_stamp(item.known_at)).total_seconds() if item.known_at else None
            alarm = self._clock.call_at(due_at, lambda: self._ring(key, item), within_s=within_s)
            self._alarms[item.instance_id][key] = alarm

    def forget(self, instance_id: str) -> None:
        """Disarm everything of an instance (it ended or continued as new)."""
        for alarm in self._alarms.pop(instance_id, {}).values():
            alarm.cancel()

    def stop(self) -> None:
        """Disarm everything; the rows stay."""
        for instance_id in list(self._alarms):
            self.forget(instance_id)

    def _ring(self, key: _Key, item: TimerItem) -> None:
        alarms = self._alarms[item.instance_id]
        alarms.pop(key, None)
        if not alarms:
            del self._alarms[item.instance_id]
        fired = TimerFired(to_stamp(self._clock.now()), item.task_id, item.fire_at)
        self._deliver(item.instance_id, item.execution_id, fired)
