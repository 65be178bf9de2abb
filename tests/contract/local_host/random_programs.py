"""Random orchestrations and a host loop without storage, time or network, to compare drivers event by event."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import azure.durable_functions as df

from local_host.durable.episodes import Episode, Mail, activity_failure_reason, new_instance
from local_host.durable.execution import Execution
from local_host.durable.history import (
    Completion,
    EventRaised,
    SubCompleted,
    SubFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from local_host.durable.protocol import from_stamp, to_stamp
from local_host.durable.records import EpisodeWrites, InboxItem
from tests.unit.local_host.durable_app import START_AT, PlainApp


def _task(context: Any, rng: random.Random) -> Any:
    match rng.choice(["activity", "activity", "activity", "timer", "sub", "entity", "http", "event"]):
        case "activity":
            return context.call_activity("work", {"n": rng.randrange(100)})
        case "timer":
            return context.create_timer(context.current_utc_datetime + timedelta(seconds=rng.randrange(1, 90)))
        case "sub":
            return context.call_sub_orchestrator("random_program", {"seed": rng.randrange(9)})
        case "entity":
            return context.call_entity(df.EntityId("counter", f"k{rng.randrange(3)}"), "add", rng.randrange(5))
        case "http":
            return context.call_http("GET", "http://127.0.0.1/x", headers={"a": "b"})
        case _:
            return context.wait_for_external_event(f"event{rng.randrange(4)}")


def _pool(context: Any, rng: random.Random, *, nudge: bool) -> Iterator[Any]:
    pool = [context.call_activity("work", {"n": rng.randrange(100)}) for _ in range(rng.randrange(2, 5))]
    budget = rng.randrange(0, 5)
    while pool:
        listed = list(pool)
        if nudge:
            timer = context.create_timer(context.current_utc_datetime + timedelta(days=4))
            timer.cancel()
            listed.append(timer)
        winner = yield context.task_any(listed)
        if winner not in pool:
            continue
        pool.remove(winner)
        if budget > 0:
            budget -= 1
            pool.append(context.call_activity("work", {"n": rng.randrange(100)}))


def _timeout(context: Any, rng: random.Random) -> Iterator[Any]:
    timer = context.create_timer(context.current_utc_datetime + timedelta(seconds=rng.randrange(1, 60)))
    other = _task(context, rng)
    winner = yield context.task_any([timer, other])
    if winner is not timer and not timer.is_completed:
        timer.cancel()


def _step(context: Any, rng: random.Random, retries: bool) -> Iterator[Any]:
    kinds = ["one", "all", "any", "pool", "nudged", "timeout", "signal", "status", "nested"]
    match rng.choice([*kinds, "retry", "retries", "race"] if retries else kinds):
        case "one":
            yield _task(context, rng)
        case "all":
            yield context.task_all([_task(context, rng) for _ in range(rng.randrange(1, 6))])
        case "any":
            yield context.task_any([_task(context, rng) for _ in range(rng.randrange(1, 5))])
        case "nested":
            sub = [context.call_activity("sure", rng.randrange(9)) for _ in range(3)]
            yield context.task_any([context.task_all(sub), context.call_activity("sure", 1)])
        case "pool":
            yield from _pool(context, rng, nudge=False)
        case "nudged":
            yield from _pool(context, rng, nudge=True)
        case "timeout":
            yield from _timeout(context, rng)
        case "signal":
            context.signal_entity(df.EntityId("counter", "s"), "add", rng.randrange(9))
        case "status":
            context.set_custom_status({"at": rng.randrange(1000)})
        case "retry":
            yield context.call_activity_with_retry("work", df.RetryOptions(1000, rng.randrange(1, 4)), {"n": 1})
        case "race":
            options = df.RetryOptions(700, 3)
            racing = [context.call_activity_with_retry("work", options, {"n": n}) for n in range(2)]
            yield context.task_any([*racing, context.call_activity("work", {"n": 5})])
            yield context.call_activity("work", {"n": 6})
        case _:
            calls = [context.call_activity_with_retry("work", df.RetryOptions(500, 3), {"n": i}) for i in range(3)]
            yield context.task_all(calls)


def random_program(context: Any) -> Iterator[Any]:
    """Interprets a seed: a few random steps, failures caught, sometimes a roll-over, sometimes a failure at the end."""
    given = context.get_input()
    generation = given.get("generation", 0)
    rng = random.Random(given["seed"] * 7 + generation)
    seen = []
    for _ in range(rng.randrange(1, 7)):
        try:
            yield from _step(context, rng, given.get("retries", False))
            seen.append("ok")
        except Exception as err:
            seen.append(str(err).split("\n")[0])
    ending = rng.randrange(6)
    if ending == 0 and generation < 2:
        context.continue_as_new({**given, "generation": generation + 1})
        return None
    if ending == 1:
        raise ValueError("at the end")
    return {"seen": seen, "version": context.version}


def make_app() -> PlainApp:
    """The app of the random programs; its activities are never really called."""
    app = PlainApp()
    app.orchestration(random_program)
    app.activity(_named("work"))
    app.activity(_named("sure"))

    @app.entity_function
    def counter(context: Any) -> None:
        context.set_result(1)

    return app


def _named(name: str) -> Any:
    def function(value: Any) -> Any:
        return value

    function.__name__ = name
    return function


@dataclass
class Loop:
    """Feeds one Execution with chosen mail and remembers what it scheduled."""

    app: PlainApp
    execution: Execution
    strict: bool = True
    held: list[InboxItem] = field(default_factory=list)

    @classmethod
    def start(cls, app: PlainApp, given: Any, *, warm: bool, strict: bool = True, execution_id: str = "e" * 32) -> Loop:
        item = new_instance("run", "random_program", None, json.dumps(json.dumps(given)), to_stamp(START_AT))
        item = type(item)(**{name: getattr(item, name) for name in item.__slots__} | {"execution_id": execution_id})
        return cls(app, Execution(item, app.orchestrator("random_program"), warm), strict)

    def episode(self, mail: Mail, at: str) -> EpisodeWrites:
        episode = Episode(self.execution, self.app, at, self.strict, None)
        writes = episode.run(Mail(list(mail.completions), [*self.held, *mail.inbox]))
        self.held = episode.held
        return writes


class World:
    """What is outstanding; hands out random batches, the same for every loop that is compared."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = START_AT
        self.pending: list[tuple[str, Any]] = []
        self.next_row = 1
        self.seed = seed

    def take_in(self, writes: EpisodeWrites) -> None:
        self.pending += [("work", item) for item in writes.work]
        self.pending += [("timer", item) for item in writes.timers]
        self.pending += [("child", item) for item in writes.children]
        self.pending += [("entity", item) for item in writes.entity_items if item.request_id]

    def batch(self) -> tuple[Mail, str]:
        self.now += timedelta(seconds=1)
        at = to_stamp(self.now)
        mail = Mail()
        timers_only = all(kind == "timer" for kind, _ in self.pending)
        count = self.rng.randrange(1, 5)
        self.rng.shuffle(self.pending)
        chosen = [p for p in self.pending if p[0] != "timer" or timers_only or self.rng.random() < 0.3][:count]
        for kind, item in chosen:
            self.pending.remove((kind, item))
            self._add(mail, kind, item, at)
        if not chosen or self.rng.random() < 0.4:
            for _ in range(self.rng.randrange(1, 3)):
                event = EventRaised(at, f"event{self.rng.randrange(4)}", '"hello"')
                mail.inbox.append(InboxItem(self._row(), None, event))
        return mail, at

    def _row(self) -> int:
        self.next_row += 1
        return self.next_row

    def _add(self, mail: Mail, kind: str, item: Any, at: str) -> None:
        if kind == "work":
            mail.completions.append(self._outcome(item, at))
        elif kind == "timer":
            self.now = max(self.now, min(from_stamp(item.fire_at), self.now + timedelta(hours=1)))
            mail.completions.append(TimerFired(at, item.task_id, item.fire_at))
        elif kind == "child":
            parent = item.parent
            failed = self.rng.random() < 0.3
            event = SubFailed(at, parent.task_id, "no", "") if failed else SubCompleted(at, parent.task_id, '"c"')
            mail.inbox.append(InboxItem(self._row(), parent.execution_id, event))
        else:
            answer = EventRaised(at, item.request_id, json.dumps({"result": "3"}))
            mail.inbox.append(InboxItem(self._row(), item.caller_execution_id, answer))

    def _outcome(self, item: Any, at: str) -> Completion:
        if item.name == "work" and self.rng.random() < 0.3:
            return TaskFailed(at, item.task_id, activity_failure_reason(item.name, "ValueError", "x"), "{}")
        result = '{"statusCode": 200, "headers": {}, "content": ""}' if item.kind == "http" else '{"r": 1}'
        return TaskCompleted(at, item.task_id, result)
