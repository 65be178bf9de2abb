"""Rewind: take the failures out of a failed instance's history, so that replay schedules the same work again.

What goes: failed completions with the created event of their task, created events of work that had not ended (the instance
was failed by the host), the end of the execution, and (for a retried action) only its last failure with the timer behind it.
Failed children are rewound too; they and children still running report to the parent's new execution.
History written after the first removed failure may no longer fit the replay; the determinism check then says so.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from uuid import uuid4

from local_host.durable.history import (
    Completion,
    Created,
    Event,
    EventRaised,
    EventSent,
    EventType,
    ExecutionCompleted,
    ExecutionStarted,
    Lifecycle,
    OrchestratorCompleted,
    SubCreated,
    SubFailed,
    TaskFailed,
    TimerCreated,
    TimerFired,
)
from local_host.durable.records import (
    Instance,
    ParentLink,
    add_inbox,
    append_chunk,
    get_instance,
    load_history,
    put_instance,
)


def rewind_instance(connection: sqlite3.Connection, item: Instance, reason: str, at: str) -> list[str]:
    """Rewind `item` (Failed) and its failed children; returns the ids to wake, the instance first."""
    events, _ = load_history(connection, item.instance_id)
    children = {event.event_id: event.instance_id for event in events if isinstance(event, SubCreated)}
    failed_subs = [event.task_id for event in events if isinstance(event, SubFailed)]
    revived = replace(
        item,
        execution_id=uuid4().hex,
        status="Running",
        output=None,
        output_is_json=False,
        updated_at=max(at, item.updated_at),
    )
    put_instance(connection, revived)
    woken = [item.instance_id]
    kept_children: set[int] = set()
    for task_id in (*failed_subs, *unfinished(events)):
        child = get_instance(connection, children.get(task_id, ""))
        if child is None:
            continue
        adopted = replace(child, parent=ParentLink(item.instance_id, revived.execution_id, task_id))
        if child.status == "Failed":
            woken += rewind_instance(connection, adopted, reason, at)
            kept_children.add(task_id)
        elif not child.is_terminal:
            put_instance(connection, adopted)
            woken.append(child.instance_id)
            kept_children.add(task_id)
    without = without_failures(events, kept_children)
    connection.execute("DELETE FROM history WHERE instance_id = ?", (item.instance_id,))
    rewound = Lifecycle(EventType.EXECUTION_REWOUND, at, reason)
    append_chunk(connection, item.instance_id, 0, [*without, rewound])
    # The message makes a restarted host wake the instance, too.
    add_inbox(connection, item.instance_id, revived.execution_id, rewound)
    return woken


def without_failures(events: list[Event], kept_created: set[int]) -> list[Event]:
    """History as if the failures had not happened. `kept_created`: tasks that are running again by themselves.

    Episode sizes (`listed`) after the first removed failure are forgotten: the replay will list less.
    """
    timers = [event for event in events if isinstance(event, TimerCreated) and event.retry_of is not None]
    retried = {timer.retry_of for timer in timers if not timer.is_last}
    last_timers = {timer.event_id for timer in timers if timer.is_last}
    failed = {event.task_id for event in events if isinstance(event, TaskFailed | SubFailed)} - retried
    removed_ids = ((failed | unfinished(events)) - kept_created) | last_timers
    kept: list[Event] = []
    failure_seen = False
    for event in events:
        match event:
            case TaskFailed(task_id=task_id) | SubFailed(task_id=task_id) if task_id in failed:
                failure_seen = True
            case TimerFired(timer_id=timer_id) if timer_id in last_timers:
                pass
            case ExecutionCompleted():
                pass
            case OrchestratorCompleted() if failure_seen:
                kept.append(replace(event, listed=None))
            case event if isinstance(event, Created) and event.event_id in removed_ids:
                pass
            case _:
                kept.append(event)
    assert any(isinstance(event, ExecutionStarted) for event in kept), "an execution has a beginning"
    return kept


def unfinished(events: list[Event]) -> set[int]:
    """Ids of created work whose end is not in history (signals end at once)."""
    waiting: set[int] = set()
    requests: dict[str, int] = {}
    for event in events:
        match event:
            case EventSent(event_id=event_id, request_id=request_id, signal=False):
                requests[request_id] = event_id
                waiting.add(event_id)
            case EventSent():
                pass
            case event if isinstance(event, Created):
                waiting.add(event.event_id)
            case EventRaised(name=name):
                waiting.discard(requests.get(name, -1))
            case TimerFired(timer_id=done):
                waiting.discard(done)
            case event if isinstance(event, Completion):
                waiting.discard(event.task_id)
            case _:
                pass
    return waiting
