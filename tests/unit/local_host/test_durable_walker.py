"""The walk over a hand-written action list: what is scheduled, and where it blocks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_host.durable.history import (
    EventRaised,
    EventSent,
    OrchestratorCompleted,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from local_host.durable.listing import Listing
from local_host.durable.numbering import Numbering
from local_host.durable.protocol import ProtocolError
from local_host.durable.walker import FrameworkIds, Role, SdkIds, Walk, walk_again

AT = "2026-01-01T00:00:00.000000Z"


def activity(name: str = "A") -> dict[str, Any]:
    return {"actionType": 0, "functionName": name, "input": "1"}


def retried(attempts: int = 2) -> dict[str, Any]:
    options = {"firstRetryIntervalInMilliseconds": 1000, "maxNumberOfAttempts": attempts}
    return {"actionType": 12, "compoundActions": [{**activity("R"), "actionType": 1, "retryOptions": options}]}


def timer(*, cancelled: bool = False) -> dict[str, Any]:
    return {"actionType": 5, "fireAt": AT, "isCanceled": cancelled}


def wait(name: str = "go") -> dict[str, Any]:
    return {"actionType": 6, "externalEventName": name, "reason": "ExternalEvent"}


def entity(*, signal: bool = False) -> dict[str, Any]:
    return {"actionType": 9 if signal else 7, "instanceId": "@c@k", "operation": "add", "input": "1"}


def any_of(*children: dict[str, Any]) -> dict[str, Any]:
    return {"actionType": 11, "compoundActions": list(children)}


def all_of(*children: dict[str, Any]) -> dict[str, Any]:
    return {"actionType": 12, "compoundActions": list(children)}


def done(task_id: int) -> TaskCompleted:
    return TaskCompleted(AT, task_id, "1")


def failed(task_id: int) -> TaskFailed:
    return TaskFailed(AT, task_id, "no", "")


def fired(task_id: int) -> TimerFired:
    return TimerFired(AT, task_id, AT)


def walked(actions: list[dict[str, Any]], *events: Any) -> Walk:
    listing = Listing()
    listing.extend(actions)
    return walk_again(listing, events, FrameworkIds())[0]


def ids(walk: Walk) -> list[int]:
    return [item.id for item in walk.scheduled]


def test_each_top_level_action_waits_for_the_one_before() -> None:
    actions = [any_of(activity("A"), activity("B")), any_of(activity("C")), any_of(activity("D"))]
    assert ids(walked(actions)) == [0, 1]
    assert ids(walked(actions, done(1))) == [0, 1, 2]
    # B is long finished and A now, too; D still waits for C.
    assert ids(walked(actions, done(1), done(0))) == [0, 1, 2]
    assert ids(walked(actions, done(1), done(2))) == [0, 1, 2, 3]


def test_a_cancelled_timer_unblocks_and_does_not_hold_the_instance() -> None:
    walk = walked([any_of(activity(), timer(cancelled=True)), activity("next")])
    assert ids(walk) == [0, 1, 2]
    walk.apply(done(0))
    walk.apply(done(2))
    walk.advance()
    assert walk.reached_end
    assert not walk.has_open_tasks()
    walk.apply(fired(1))
    assert not walk.has_open_tasks()


def test_a_timer_cancelled_later_releases_the_walk_and_the_instance() -> None:
    listing = Listing()
    leaves = listing.extend([timer(), activity()])
    walk = Walk(listing, FrameworkIds())
    walk.advance()
    assert ids(walk) == [0]
    assert walk.has_open_tasks()
    walk.cancel(leaves[0])
    walk.advance()
    assert ids(walk) == [0, 1]
    walk.apply(done(1))
    assert not walk.has_open_tasks()


def test_when_all_waits_for_every_child_also_after_a_failure() -> None:
    actions = [all_of(activity(), activity()), activity("next")]
    assert ids(walked(actions, failed(0))) == [0, 1]
    assert ids(walked(actions, failed(0), done(1))) == [0, 1, 2]


def test_signals_never_block_and_take_an_id_waits_block_and_take_none() -> None:
    walk = walked([entity(signal=True), wait(), activity()])
    assert ids(walk) == [0]
    assert not walk.has_open_tasks()
    walk.apply(EventRaised(AT, "go", "1"))
    walk.advance()
    assert ids(walk) == [0, 1]


def test_an_entity_call_blocks_until_its_own_answer_but_is_no_open_task() -> None:
    sent = EventSent(AT, 0, "@c@k", "add", "request", False, "")
    assert not walked([entity(), activity()], sent).has_open_tasks()
    assert ids(walked([entity(), activity()], sent, EventRaised(AT, "other", "1"))) == [0]
    assert ids(walked([entity(), activity()], sent, EventRaised(AT, "request", "1"))) == [0, 1]


def test_an_early_event_is_buffered_and_the_newest_of_two_waits_is_served_first() -> None:
    assert ids(walked([activity(), wait(), activity()], EventRaised(AT, "go", "1"), done(0))) == [0, 1]
    nested = [all_of(wait(), all_of(wait(), activity())), activity()]
    walk = walked(nested, EventRaised(AT, "go", "1"), done(0))
    assert not walk.reached_end
    assert ids(walk) == [0]


def test_retries_take_timer_and_attempt_ids_and_one_timer_after_the_last_failure() -> None:
    actions = [retried(2), activity("next")]
    walk = walked(actions, failed(0), fired(1), failed(2))
    assert [(item.id, item.role, item.is_last_timer) for item in walk.scheduled] == [
        (0, Role.ACTION, False),
        (1, Role.RETRY_TIMER, False),
        (2, Role.ATTEMPT, False),
        (3, Role.RETRY_TIMER, True),
    ]
    assert walk.has_open_tasks()
    walk.apply(fired(3))
    walk.advance()
    assert ids(walk)[-1] == 4
    assert ids(walked(actions, failed(0), fired(1), done(2))) == [0, 1, 2, 3]


def test_continue_as_new_is_reached_only_behind_what_blocks_it() -> None:
    roll = {"actionType": 4, "input": "2"}
    listing = Listing()
    listing.extend([activity(), roll])
    assert walk_again(listing, [], FrameworkIds())[1] is None
    assert walk_again(listing, [EventRaised(AT, "x", None), done(0)], FrameworkIds())[1] == 1
    unblocked = Listing()
    unblocked.extend([any_of(activity(), timer(cancelled=True)), roll])
    assert walk_again(unblocked, [done(0)], FrameworkIds())[1] == -1


def test_events_for_what_is_not_open_are_ignored() -> None:
    walk = walked([activity(), activity()], done(7), fired(0), done(0), done(0))
    assert ids(walk) == [0, 1]


@pytest.mark.parametrize("bad", [{"actionType": 99}, {"actionType": 0}, {}, {"actionType": 11, "compoundActions": [1]}])
def test_unreadable_actions_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Listing().extend([bad])


LEAVES = st.sampled_from([activity(), timer(), timer(cancelled=True), entity(), entity(signal=True), wait("w")])
ACTIONS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda children: st.sampled_from([any_of(*children), all_of(*children)])
    ),
    max_leaves=5,
)


@given(st.lists(ACTIONS, max_size=6), st.lists(st.integers(0, 12), max_size=20))
def test_walking_on_with_a_growing_list_equals_walking_again(actions: list[Any], order: list[int]) -> None:
    """Ids are dense and unique, nothing is scheduled twice, and how the list grew does not matter."""
    grown = Listing()
    numbering = Numbering()
    walk = Walk(grown, SdkIds(numbering))
    events: list[Any] = []
    for step, task_id in enumerate(order):
        if step < len(actions):
            numbering.number(grown.extend([actions[step]]))
        walk.advance()
        events.append(fired(task_id) if step % 2 else done(task_id))
        walk.apply(events[-1])
        walk.advance()
    for action in actions[len(order) :]:
        numbering.number(grown.extend([action]))
    walk.advance()
    scheduled = ids(walk)
    assert scheduled == sorted(set(scheduled)) == list(range(len(scheduled)))
    assert walk.reached_end or walk.position < len(grown.tops)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_numbers_are_rebuilt_from_history_as_they_were_given(attempts: list[int], rng: Any) -> None:
    """Random failures of retried actions, batch by batch, then the same from the recorded history."""
    listing, live, history = Listing(), Numbering(), []
    live.number(listing.extend([any_of(*[retried(n) for n in attempts], activity())]))
    history.append(OrchestratorCompleted(AT, len(listing.leaves)))
    for _ in range(10):
        waiting = sorted(live.chains)
        if not waiting:
            break
        batch = [
            fired(task_id) if live.chains[task_id].on_timer else failed(task_id)
            for task_id in rng.sample(waiting, rng.randint(1, len(waiting)))
        ]
        for event in live.order_batch(batch):
            live.on_event(event)
            history.append(event)
        if rng.random() < 0.5:
            live.number(listing.extend([activity("later")]))
        history.append(OrchestratorCompleted(AT, len(listing.leaves)))
    again = Listing()
    again.extend(listing.raw)
    rebuilt = Numbering.rebuilt(history, again.leaves)
    assert [leaf.id for leaf in again.leaves] == [leaf.id for leaf in listing.leaves]
    assert rebuilt.next_id == live.next_id
    assert rebuilt.after == live.after
