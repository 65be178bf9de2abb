"""A very small durable engine in virtual time, driving the real SDK with JSON histories: just enough for orchestrator tests.

Every episode is a cold replay from the whole history, and the actions it lists must begin with those of the episode before.
With ``faithful`` the list is walked as the Azure extension does: an entry is looked at when the one before it is done.
"""

from __future__ import annotations

import heapq
import itertools
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from azure.durable_functions.orchestrator import Orchestrator

START_AT = datetime(2026, 1, 1, tzinfo=UTC)
WORK = {0: 4, 2: 7, 5: 10}  # action type → event type of its creation

# The package attribute of this name is the class; the module itself is only reachable here.
_HISTORY = sys.modules["azure.durable_functions.models.history.HistoryEvent"]

Activity = Callable[[str, dict[str, Any]], tuple[float, Any]]


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Instance:
    instance_id: str
    handle: Callable[[str], str]
    input: Any
    parent: tuple[str, int] | None
    history: list[dict[str, Any]] = field(default_factory=list)
    actions: list[dict[str, Any]] = field(default_factory=list)
    dispatched: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    events: set[str] = field(default_factory=set)
    output: Any = None
    error: str | None = None
    status: Any = None
    statuses: list[Any] = field(default_factory=list)
    done_at: datetime | None = None
    returned: bool = False
    replays: int = 0


@dataclass
class Call:
    name: str
    input: dict[str, Any]
    started_at: datetime
    ended_at: datetime | None = None


class World:
    def __init__(self, orchestrators: dict[str, Any], activity: Activity, *, faithful: bool = True) -> None:
        self.handles = {name: Orchestrator.create(body) for name, body in orchestrators.items()}
        self.activity = activity
        self.faithful = faithful
        self.now = START_AT
        self.instances: dict[str, Instance] = {}
        self.calls: list[Call] = []
        self.actions_ever: dict[str, list[list[dict[str, Any]]]] = {}
        self._queue: list[tuple[datetime, int, str, dict[str, Any]]] = []
        self._sequence = itertools.count()

    def start(self, name: str, instance_id: str, value: Any, parent: tuple[str, int] | None = None) -> Instance:
        instance = Instance(instance_id, self.handles[name], value, parent)
        self.instances[instance_id] = instance
        self.post(instance_id, self.now, {"EventType": 0, "EventId": -1, "Name": name, "Version": ""})
        return instance

    def post(self, instance_id: str, at: datetime, event: dict[str, Any]) -> None:
        heapq.heappush(self._queue, (at, next(self._sequence), instance_id, event))

    def raise_event(self, instance_id: str, name: str, after_s: float) -> None:
        at = START_AT + timedelta(seconds=after_s)
        self.post(instance_id, at, {"EventType": 15, "EventId": -1, "Name": name, "Input": "null"})

    def run(self, instance_id: str, *, limit: int = 20_000) -> Instance:
        """Run until the instance is over; a world in which nothing more can happen before that is a failure."""
        main = self.instances[instance_id]
        for _ in range(limit):
            if main.done_at is not None:
                return main
            assert self._queue, f"{instance_id} hangs; status {main.status}"
            self.step()
        raise AssertionError("the run does not end")

    def step(self) -> None:
        """One episode: everything that is due for one instance at one moment."""
        self.now, _, instance_id, first = heapq.heappop(self._queue)
        batch, rest = [first], []
        while self._queue and self._queue[0][0] == self.now:
            item = heapq.heappop(self._queue)
            (batch.append(item[3]) if item[2] == instance_id else rest.append(item))
        for item in rest:
            heapq.heappush(self._queue, item)
        instance = self.instances[instance_id]
        if instance.done_at is not None:
            return
        instance.history.append({"EventType": 12, "EventId": -1})
        instance.history[-1] |= {"IsPlayed": False, "Timestamp": stamp(self.now)}
        for event in batch:
            self._take(instance, event)
        self._replay(instance)
        self._walk(instance)

    def _take(self, instance: Instance, event: dict[str, Any]) -> None:
        for key in ("TaskScheduledId", "TimerId"):
            if key in event:
                instance.finished.add(event[key])
        if event["EventType"] == 15:
            instance.events.add(event["Name"])
        if "_call" in event:
            event["_call"].ended_at = self.now
        kept = {key: value for key, value in event.items() if key != "_call"}
        instance.history.append(kept | {"IsPlayed": False, "Timestamp": stamp(self.now)})

    def _replay(self, instance: Instance) -> None:
        body = {
            "history": instance.history,
            "input": json.dumps(instance.input),
            "instanceId": instance.instance_id,
            "isReplaying": True,
            "parentInstanceId": None,
            "upperSchemaVersion": 1,
            "upperSchemaVersionNew": 2,
            "longRunningTimerIntervalDuration": "3.00:00:00",
            "maximumShortTimerDuration": "6.00:00:00",
        }
        instance.replays += 1
        # The SDK's parser costs 50 microseconds for each event of each replay: nine tenths of these tests.
        with warnings.catch_warnings(), patch.object(_HISTORY, "dt_parse", datetime.fromisoformat):
            warnings.simplefilter("ignore")
            try:
                state = json.loads(instance.handle(json.dumps(body)))
            except Exception as error:
                message, _, tail = str(error).partition("\n\n$OutOfProcData$:")
                assert tail, f"the SDK itself broke: {message}"
                state = json.loads(tail)
        actions = state["actions"][0]
        before = [_identity(action) for action in instance.actions]
        assert [_identity(action) for action in actions[: len(before)]] == before, "a replay listed other actions"
        instance.actions = actions
        self.actions_ever.setdefault(instance.instance_id, []).append(actions)
        instance.status = state.get("customStatus")
        instance.statuses.append(instance.status)
        instance.error = state.get("error")
        instance.returned = state["isDone"] or instance.error is not None
        instance.output = state.get("output")

    def _walk(self, instance: Instance) -> None:
        identifier, blocked = 0, False
        for action in instance.actions:
            leaves = action.get("compoundActions", [action])
            done = False
            for leaf in leaves:
                if leaf["actionType"] == 6:
                    done |= leaf["externalEventName"] in instance.events
                    continue
                task_id, identifier = identifier, identifier + 1
                if not blocked and task_id not in instance.dispatched:
                    instance.dispatched.add(task_id)
                    self._dispatch(instance, task_id, leaf)
                done |= task_id in instance.finished or leaf.get("isCanceled", False)
            blocked = blocked or (self.faithful and not done and bool(leaves))
        if instance.returned and not blocked and not self._open_work(instance):
            instance.done_at = self.now
            self._report(instance)

    def _open_work(self, instance: Instance) -> bool:
        leaves = [leaf for action in instance.actions for leaf in action.get("compoundActions", [action])]
        work = [leaf for leaf in leaves if leaf["actionType"] in WORK]
        return any(
            task_id not in instance.finished and not leaf.get("isCanceled", False) for task_id, leaf in enumerate(work)
        )

    def _report(self, instance: Instance) -> None:
        if instance.parent is None:
            return
        parent_id, task_id = instance.parent
        if instance.error is not None:
            event = {"EventType": 9, "TaskScheduledId": task_id, "Reason": instance.error, "Details": ""}
        else:
            event = {"EventType": 8, "TaskScheduledId": task_id, "Result": json.dumps(instance.output)}
        self.post(parent_id, self.now, {"EventId": -1, **event})

    def _dispatch(self, instance: Instance, task_id: int, leaf: dict[str, Any]) -> None:
        created = {"EventType": WORK[leaf["actionType"]], "EventId": task_id, "Name": leaf.get("functionName")}
        instance.history.append(created | {"IsPlayed": False, "Timestamp": stamp(self.now)})
        if leaf["actionType"] == 5:
            fire_at = datetime.fromisoformat(leaf["fireAt"])
            event = {"EventType": 11, "EventId": -1, "TimerId": task_id, "FireAt": leaf["fireAt"]}
            self.post(instance.instance_id, max(fire_at, self.now), event)
        elif leaf["actionType"] == 2:
            self.start(
                leaf["functionName"], leaf["instanceId"], json.loads(leaf["input"]), (instance.instance_id, task_id)
            )
        else:
            self._call(instance, task_id, leaf)

    def _call(self, instance: Instance, task_id: int, leaf: dict[str, Any]) -> None:
        call = Call(leaf["functionName"], json.loads(leaf["input"]), self.now)
        self.calls.append(call)
        duration_s, result = self.activity(call.name, call.input)
        if isinstance(result, Exception):
            event = {"EventType": 6, "TaskScheduledId": task_id, "Reason": str(result), "Details": ""}
        else:
            event = {"EventType": 5, "TaskScheduledId": task_id, "Result": json.dumps(result)}
        self.post(
            instance.instance_id, self.now + timedelta(seconds=duration_s), {"EventId": -1, **event, "_call": call}
        )


def _identity(action: dict[str, Any]) -> Any:
    """An action without ``isCanceled``, which may flip later."""
    if "compoundActions" in action:
        return [action["actionType"], [_identity(child) for child in action["compoundActions"]]]
    return {key: value for key, value in action.items() if key != "isCanceled"}
