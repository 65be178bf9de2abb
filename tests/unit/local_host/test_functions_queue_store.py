"""The SQLite broker against a model: nothing lost, nothing delivered twice at once, counts that add up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from local_host.queue_store import SqliteQueueBroker
from local_host.queues import EntityOptions, OutgoingMessage, QueueError

START_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOCK_S = 30.0
MAX_DELIVERIES = 3


class Hands:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at = START_AT

    def __call__(self) -> datetime:
        return self.at

    def move_s(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def broker(tmp_path: Path, hands: Hands):
    broker = SqliteQueueBroker(tmp_path / "q.sqlite", hands)
    yield broker
    broker.close()


def _bodies(messages) -> list[str]:
    return [locked.message.body.decode() for locked in messages]


def _send(broker, queue, text, **fields) -> str:
    return broker.send(queue, OutgoingMessage(text.encode(), **fields))


def test_what_waits_is_received_after_the_clock_was_set_back(broker, hands):
    broker.declare("q", EntityOptions(lock_s=LOCK_S, max_delivery_count=MAX_DELIVERIES, duplicate_window_s=60))
    for text in ("held", "waits"):
        _send(broker, "q", text, message_id=text)
    _send(broker, "q", "later", scheduled_at=hands.at + timedelta(seconds=50))
    _send(broker, "q", "dies", ttl_s=100)
    assert _bodies(broker.receive("q", 1)) == ["held"]
    hands.move_s(-3_600)
    assert _bodies(broker.receive("q", 1)) == ["waits"]
    hands.move_s(LOCK_S + 1)
    assert _bodies(broker.receive("q", 9)) == ["held", "waits", "dies"], (
        "their locks are over, and not one other's time"
    )
    hands.move_s(20)
    assert _bodies(broker.receive("q", 9)) == ["later"]
    _send(broker, "q", "waits again", message_id="waits")
    assert broker.counts("q").active == 4, "what was seen more than a minute ago is forgotten"
    hands.move_s(60)
    broker.receive("q", 9)
    assert "dies" not in _bodies(broker.receive("q", 9))


def test_what_was_written_before_a_clock_that_starts_earlier_waits_for_nobody(tmp_path, hands):
    broker = SqliteQueueBroker(tmp_path / "q.sqlite", hands)
    broker.declare("s", EntityOptions(sessions=True, lock_s=LOCK_S))
    _send(broker, "s", "one", session_id="a")
    assert broker.accept_session("s") is not None
    broker.close()
    hands.move_s(-86_400)
    for _ in range(2):  # opened once more, nothing moves again
        broker = SqliteQueueBroker(tmp_path / "q.sqlite", hands)
        assert broker.accept_session("s") is None, "whoever has it has it for as long as it had left"
        broker.close()
    hands.move_s(LOCK_S + 1)
    broker = SqliteQueueBroker(tmp_path / "q.sqlite", hands)
    session = broker.accept_session("s")
    assert session is not None
    assert _bodies(broker.receive("s", 1, session)) == ["one"]
    broker.close()


@dataclass
class Model:
    """What the test believes about one message."""

    available_at: datetime
    deliveries: int = 0
    token: str | None = None
    locked_until_at: datetime = START_AT


class QueueMachine(RuleBasedStateMachine):
    """Random sends, receives, settlements and time against a dictionary."""

    @initialize()
    def begin(self) -> None:
        self.hands = Hands()
        self.broker = SqliteQueueBroker(Path(":memory:"), self.hands)
        self.broker.declare("q", EntityOptions(lock_s=LOCK_S, max_delivery_count=MAX_DELIVERIES))
        self.live: dict[str, Model] = {}
        self.dead: set[str] = set()
        self.sent = 0

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.broker.close()

    def _age(self) -> None:
        for name, model in list(self.live.items()):
            if model.token is not None and model.locked_until_at <= self.hands.at:
                model.token = None
            if model.token is None and model.deliveries >= MAX_DELIVERIES:
                del self.live[name]
                self.dead.add(name)

    @rule(delay_s=st.sampled_from([0, 0, 0, 20]))
    def send(self, delay_s: int) -> None:
        name = f"m{self.sent}"
        self.sent += 1
        available_at = self.hands.at + timedelta(seconds=delay_s)
        _send(self.broker, "q", name, message_id=name, scheduled_at=available_at if delay_s else None)
        self.live[name] = Model(available_at)

    @rule(limit=st.integers(1, 3))
    def receive(self, limit: int) -> None:
        self._age()
        expected = [
            name for name, model in self.live.items() if model.token is None and model.available_at <= self.hands.at
        ][:limit]
        received = self.broker.receive("q", limit)
        assert [locked.message.message_id for locked in received] == expected
        for locked in received:
            model = self.live[locked.message.message_id]
            model.deliveries += 1
            assert locked.delivery_count == model.deliveries
            model.token, model.locked_until_at = locked.lock_token, locked.locked_until_at

    @rule()
    def fail_everything(self) -> None:
        self.receive(99)
        for model in self.live.values():
            if model.token is not None:
                self.broker.abandon("q", model.token)
                model.token = None

    @rule(action=st.sampled_from(["complete", "abandon", "dead_letter", "renew"]), pick=st.integers(0, 99))
    def settle(self, action: str, pick: int) -> None:
        self._age()
        held = [(name, model) for name, model in self.live.items() if model.token is not None]
        if not held:
            return
        name, model = held[pick % len(held)]
        match action:
            case "complete":
                self.broker.complete("q", model.token)
                del self.live[name]
                with pytest.raises(QueueError, match=r"queue\.lock_lost"):
                    self.broker.complete("q", model.token)
            case "abandon":
                self.broker.abandon("q", model.token)
                model.token = None
            case "dead_letter":
                self.broker.dead_letter("q", model.token, "because")
                del self.live[name]
                self.dead.add(name)
            case _:
                model.locked_until_at = self.broker.renew("q", model.token)
                assert model.locked_until_at == self.hands.at + timedelta(seconds=LOCK_S)

    @rule(seconds=st.sampled_from([1, 10, LOCK_S]))
    def wait(self, seconds: float) -> None:
        self.hands.move_s(seconds)

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "broker"):
            return
        self._age()
        counts = self.broker.counts("q")
        assert counts.dead_letter == len(self.dead)
        assert counts.active + counts.scheduled == len(self.live)
        assert counts.locked == sum(model.token is not None for model in self.live.values())


QueueMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestQueueMachine = QueueMachine.TestCase


def test_an_expired_lock_gives_the_message_back_and_refuses_the_late_settlement(broker, hands):
    broker.declare("q", EntityOptions(lock_s=5))
    _send(broker, "q", "x")
    [first] = broker.receive("q")
    assert broker.next_due_at("q") == first.locked_until_at
    hands.move_s(5)
    [second] = broker.receive("q")
    assert second.delivery_count == 2
    with pytest.raises(QueueError, match=r"queue\.lock_lost"):
        broker.complete("q", first.lock_token)
    broker.complete("q", second.lock_token)


def test_an_expired_lock_is_lost_even_when_nobody_else_took_the_message(broker, hands):
    broker.declare("q", EntityOptions(lock_s=5))
    _send(broker, "q", "x")
    [locked] = broker.receive("q")
    hands.move_s(5)
    for settle in (broker.complete, broker.abandon, broker.renew):
        with pytest.raises(QueueError, match=r"queue\.lock_lost"):
            settle("q", locked.lock_token)


@pytest.mark.parametrize("end_delivery", ["abandon", "expire"])
def test_a_message_is_delivered_exactly_as_often_as_allowed(broker, hands, end_delivery):
    broker.declare("q", EntityOptions(lock_s=5, max_delivery_count=3))
    _send(broker, "q", "x")
    deliveries = 0
    while received := broker.receive("q"):
        deliveries += 1
        if end_delivery == "abandon":
            broker.abandon("q", received[0].lock_token)
        hands.move_s(5)
    assert (deliveries, broker.counts("q").dead_letter) == (3, 1)


def test_a_session_is_held_by_one_receiver_and_stays_in_order_after_an_abandon(broker, hands):
    broker.declare("q", EntityOptions(sessions=True, lock_s=10))
    for text in ("a1", "b1", "a2"):
        _send(broker, "q", text, session_id=text[0])
    first = broker.accept_session("q")
    assert first.session_id == "a"
    assert broker.accept_session("q", "a") is None
    assert broker.accept_session("q").session_id == "b"
    [message] = broker.receive("q", 1, first)
    assert broker.receive("q", 1, first) == []  # a2 must not overtake a1
    broker.abandon("q", message.lock_token)
    [message] = broker.receive("q", 1, first)
    assert _bodies([message]) == ["a1"]
    broker.complete("q", message.lock_token)
    assert _bodies(broker.receive("q", 1, first)) == ["a2"]
    broker.release_session(first)
    again = broker.accept_session("q", "a")
    assert _bodies(broker.receive("q", 9, again)) == ["a2"]


def test_a_lost_session_lock_stops_its_holder(broker, hands):
    broker.declare("q", EntityOptions(sessions=True, lock_s=10))
    _send(broker, "q", "x", session_id="s")
    old = broker.accept_session("q")
    hands.move_s(9)
    old = broker.renew_session(old)
    hands.move_s(10)
    new = broker.accept_session("q")
    for use in (broker.renew_session, lambda lock: broker.receive("q", 1, lock)):
        with pytest.raises(QueueError, match=r"queue\.lock_lost"):
            use(old)
    broker.release_session(old)  # must not free the new holder's session
    assert broker.accept_session("q") is None
    assert _bodies(broker.receive("q", 1, new)) == ["x"]


def test_duplicates_are_dropped_within_the_window_only(broker, hands):
    broker.declare("q", EntityOptions(duplicate_window_s=60))
    assert _send(broker, "q", "x", message_id="m") == _send(broker, "q", "again", message_id="m") == "m"
    hands.move_s(60)
    _send(broker, "q", "later", message_id="m")
    assert _bodies(broker.receive("q", 9)) == ["x", "later"]


def test_a_topic_copies_to_each_subscription_and_to_nobody_without_one(broker):
    broker.declare_topic("t")
    _send(broker, "t", "unheard")
    for name in ("t/Subscriptions/a", "t/Subscriptions/b"):
        broker.declare(name)
    _send(broker, "t", "heard")
    assert [_bodies(broker.receive(f"t/Subscriptions/{s}", 9)) for s in "ab"] == [["heard"], ["heard"]]
    for wrong in (lambda: broker.receive("t"), lambda: broker.declare("t")):
        with pytest.raises(QueueError, match=r"queue\.conflict"):
            wrong()


def test_expired_messages_vanish_or_are_dead_lettered(broker, hands):
    broker.declare("gone", EntityOptions(default_ttl_s=10))
    broker.declare("kept", EntityOptions(dead_letter_on_expiry=True))
    _send(broker, "gone", "x", ttl_s=500)  # the queue's own limit is shorter
    _send(broker, "kept", "y", ttl_s=5)
    hands.move_s(10)
    assert broker.receive("gone") == []
    assert broker.receive("kept") == []
    assert (broker.counts("gone").dead_letter, broker.counts("kept").dead_letter) == (0, 1)
    [dead] = broker.receive("kept/$DeadLetterQueue")
    assert (dead.dead_letter_reason, dead.dead_letter_source) == ("TTLExpiredException", "kept")
    broker.complete("kept/$DeadLetterQueue", dead.lock_token)
    assert broker.counts("kept").dead_letter == 0


def test_everything_survives_reopening(tmp_path, hands):
    path = tmp_path / "q.sqlite"
    first = SqliteQueueBroker(path, hands)
    first.declare("q", EntityOptions(lock_s=30))
    _send(first, "q", "locked", properties={"k": 1}, ttl_s=900, subject="s")
    _send(first, "q", "waiting")
    [locked] = first.receive("q")
    first.close()
    second = SqliteQueueBroker(path, hands)
    assert _bodies(second.receive("q", 9)) == ["waiting"]
    second.complete("q", locked.lock_token)  # the lock outlives the process
    assert second.counts("q").active == 1
    assert (locked.message.properties, locked.message.subject, locked.message.ttl_s) == ({"k": 1}, "s", 900)
    second.close()


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda b: _send(b, "nowhere", "x"), "queue.not_found"),
        (lambda b: _send(b, "q", "x" * 1_048_577), "queue.bad_message"),
        (lambda b: _send(b, "q", "x", message_id="m" * 129), "queue.bad_message"),
        (lambda b: _send(b, "q/$DeadLetterQueue", "x"), "queue.bad_message"),
        (lambda b: b.declare("a b"), "queue.bad_name"),
        (lambda b: b.declare("a/../b"), "queue.bad_name"),
        (lambda b: b.declare("x" * 261), "queue.bad_name"),
        (lambda b: b.accept_session("q"), "queue.conflict"),
    ],
)
def test_refusals_have_codes(broker, send, code):
    broker.declare("q")
    with pytest.raises(QueueError) as caught:
        send(broker)
    assert caught.value.code == code


def test_a_receiver_is_woken_by_sends_and_abandons_until_it_stops(broker):
    broker.declare("q")
    rings: list[str] = []
    stop = broker.on_available("q", lambda: rings.append("ring"))
    _send(broker, "q", "x")
    [locked] = broker.receive("q")
    broker.abandon("q", locked.lock_token)
    assert len(rings) == 2
    stop()
    _send(broker, "q", "y")
    assert len(rings) == 2
