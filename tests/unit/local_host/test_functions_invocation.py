"""Calling functions: threads, context, outputs, errors; and the listeners around them in virtual time."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import azure.functions as func
import pytest
from azure.functions.meta import Datum

from local_host.durable.admission import Admission, Bounds
from local_host.durable.clock import VirtualClock
from local_host.durable.functions import ActivityError
from local_host.durable_functions import AppDurableFunctions
from local_host.errors import HostError
from local_host.http.keys import KeyStore, matches_any
from local_host.instance_lock import instance_lock
from local_host.invocation import FunctionError, Invoker, TriggerInput, thread_pool_size
from local_host.invocation_context import Trace
from local_host.queue_commits import Turns
from local_host.queue_listener import QueueListener
from local_host.queue_store import SqliteQueueBroker
from local_host.queues import OutgoingMessage
from local_host.settings import ServiceBusOptions
from local_host.specs import (
    ActivityTrigger,
    AuthLevel,
    Cardinality,
    FunctionSpec,
    QueueOutput,
    QueueTrigger,
    TimerTrigger,
)
from local_host.timers import TimerListener, TimerStatusStore

START_AT = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)


@pytest.fixture
def sent() -> list[tuple[str, bytes]]:
    return []


@pytest.fixture
def invoker(tmp_path: Path, sent):
    invoker = Invoker(
        tmp_path,
        {"PYTHON_THREADPOOL_THREAD_COUNT": "2"},
        queue_send=lambda entity, body: sent.append((entity, body)),
        client_json=lambda hub, from_within: "{}",
    )
    yield invoker
    invoker.close()


def _activity(function, **fields) -> FunctionSpec:
    return FunctionSpec(
        function.__name__,
        function.__name__,
        function,
        asyncio.iscoroutinefunction(function),
        ActivityTrigger("p", function.__name__),
        **fields,
    )


def _json(text: str | None) -> TriggerInput:
    return TriggerInput(Datum(text, "json") if text is not None else None, {})


async def test_plain_functions_run_in_the_pool_and_coroutines_on_the_loop(invoker):
    def plain(p):
        return threading.current_thread().name

    async def coroutine(p):
        return threading.current_thread().name

    assert (await invoker.call(_activity(plain), _json("1"))).startswith("function")
    assert await invoker.call(_activity(coroutine), _json("1")) == threading.current_thread().name


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": 1}', {"a": 1}), ("null", None), (None, None), ("not json", "not json"), ('"text"', "text"), ("[1]", [1])],
)
async def test_activity_inputs_are_decoded_and_none_is_allowed(invoker, text, value):
    got = []

    async def act(p):
        got.append(p)

    await invoker.call(_activity(act), _json(text))
    assert got == [value]


async def test_outputs_are_sent_after_success_and_all_or_none(invoker, sent):
    outputs = (QueueOutput("first", "q1"), QueueOutput("second", "q2"), QueueOutput("$return", "q3"))

    def run(value):
        async def body(p, first: func.Out[str], second: func.Out[bytes]) -> bytes:
            first.set("one")
            second.set(value)
            return b"three"

        return _activity(body, outputs=outputs)

    await invoker.call(run(None), _json("1"))
    assert sent == [("q1", b"one"), ("q3", b"three")]  # None means no message
    sent.clear()
    with pytest.raises(FunctionError):
        await invoker.call(run({"not": "encodable"}), _json("1"))
    assert sent == []


async def test_a_failure_keeps_type_message_and_stack_in_the_hosts_layout(invoker):
    def act(p):
        raise ValueError("boom")

    with pytest.raises(FunctionError) as caught:
        await invoker.call(_activity(act), _json("1"))
    text = caught.value.host_text()
    assert text.startswith("Result: Failure\nType: ValueError\nException: ValueError: boom\nStack: Traceback")
    functions = AppDurableFunctions([_activity(act)], invoker)
    with pytest.raises(ActivityError) as failed:
        await functions.call_activity("ACT", "1", instance_id="i", task_id=0)
    assert (failed.value.type_name, failed.value.message) == ("ValueError", "boom")
    assert "test_functions_invocation" in failed.value.details


async def test_activity_results_travel_as_json_and_bytes_are_a_failure(invoker):
    async def act(p):
        return p

    async def raw(p):
        return b"bytes"

    functions = AppDurableFunctions([_activity(act), _activity(raw)], invoker)
    assert json.loads(await functions.call_activity("act", '{"a": [1]}', instance_id="i", task_id=0)) == {"a": [1]}
    assert await functions.call_activity("act", None, instance_id="i", task_id=0) is None
    with pytest.raises(ActivityError):
        await functions.call_activity("raw", "1", instance_id="i", task_id=0)
    with pytest.raises(KeyError):
        await functions.call_activity("nobody", "1", instance_id="i", task_id=0)


async def test_context_is_passed_when_wanted(invoker, tmp_path):
    seen = []

    def act(p, context):
        seen.append(context)

    await invoker.call(_activity(act, wants_context=True), _json("1"), Trace("00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
    [context] = seen
    assert (context.function_name, context.function_directory) == ("act", str(tmp_path))
    assert context.trace_context.trace_parent.split("-")[1] == "a" * 32
    assert context.retry_context.retry_count == 0
    assert context.trace_context.attributes["InvocationId"] == context.invocation_id


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x",
        "00-" + "0" * 32 + "-" + "b" * 16 + "-01",
        "ff-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "b" * 16 + "-01",
    ],
)
def test_a_malformed_traceparent_starts_a_new_trace(header):
    trace = Trace.from_headers({"traceparent": header, "tracestate": "k=v"})
    assert "a" * 32 not in trace.traceparent
    assert trace.tracestate == ""


def test_the_pool_size_falls_back_to_the_workers_default():
    assert thread_pool_size({"PYTHON_THREADPOOL_THREAD_COUNT": "3"}) == 3
    for bad in ("", "0", "-1", "many"):
        assert thread_pool_size({"PYTHON_THREADPOOL_THREAD_COUNT": bad}) == thread_pool_size({}) >= 5


# -- timers


class TimerBench:
    """A timer function that reports its runs and waits to be let go."""

    def __init__(self, invoker, tmp_path, clock, schedule="0 */5 * * * *", startup=False, monitor=True):
        self.runs, self.ends, self.running, self.most = [], asyncio.Semaphore(0), 0, 0

        async def tick(timer):
            self.runs.append(timer.past_due)
            self.running += 1
            self.most = max(self.most, self.running)
            await self.ends.acquire()
            self.running -= 1

        spec = FunctionSpec("tick", "tick", tick, True, TimerTrigger("timer", schedule, startup, monitor))
        self.store = TimerStatusStore(tmp_path / "t.sqlite")
        self.listener = TimerListener(spec, invoker, clock, self.store)
        self.listener.start()


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_timer_never_overlaps_itself_and_skips_what_it_slept_through(invoker, tmp_path):
    clock = VirtualClock(START_AT)
    bench = TimerBench(invoker, tmp_path, clock)
    await _settle()
    for _ in range(6):
        clock.advance_s(300)
        await _settle()
    assert (bench.runs, bench.most) == ([False], 1)
    bench.ends.release()
    await _settle()
    clock.advance_s(1)
    await _settle()
    assert len(bench.runs) == 1  # the five occurrences it slept through are gone
    clock.advance_s(300)
    await _settle()
    assert (len(bench.runs), bench.most) == (2, 1)
    bench.ends.release()
    await bench.listener.stop(1)
    bench.store.close()


@pytest.mark.parametrize(
    ("first", "second", "down_s", "expected"),
    [
        ("0 */5 * * * *", "0 */5 * * * *", 60, []),
        ("0 */5 * * * *", "0 */5 * * * *", 900, [True]),
        ("0 0 0 1 1 *", "0 */5 * * * *", 900, [True]),  # the edited schedule would have fired
        ("0 */5 * * * *", "0 0 0 1 1 *", 900, []),
        ("*/10 * * * * *", "*/10 * * * * *", 900, []),  # too frequent to be monitored
    ],
)
async def test_a_restart_notices_what_was_missed(invoker, tmp_path, first, second, down_s, expected):
    clock = VirtualClock(START_AT)
    before = TimerBench(invoker, tmp_path, clock, first)
    await before.listener.stop(0)
    before.store.close()
    clock = VirtualClock(START_AT + timedelta(seconds=down_s))
    after = TimerBench(invoker, tmp_path, clock, second)
    await _settle()
    clock.advance_s(1)
    await _settle()
    assert after.runs == expected
    after.ends.release()
    await after.listener.stop(1)
    after.store.close()


async def test_a_timer_goes_on_by_its_schedule_when_the_clock_is_set_back(invoker, tmp_path):
    clock = VirtualClock(START_AT)
    bench = TimerBench(invoker, tmp_path, clock, "*/15 * * * * *")
    for _ in range(20):
        bench.ends.release()
    await _settle()
    clock.set_by_s(-3_600)
    for _ in range(12):
        clock.advance_s(15)
        await _settle()
    assert 8 <= len(bench.runs) <= 12, "three minutes of a timer that rings four times a minute"
    await bench.listener.stop(1)
    bench.store.close()


async def test_a_timer_goes_on_while_its_status_cannot_be_written(invoker, tmp_path):
    clock = VirtualClock(START_AT)
    bench = TimerBench(invoker, tmp_path, clock, "0 */5 * * * *")
    for _ in range(3):
        bench.ends.release()
    bench.store._db.execute("PRAGMA query_only = ON")  # as on a full disk
    for _ in range(3):
        await _settle()
        clock.advance_s(300)
    await _settle()
    assert len(bench.runs) == 3
    await bench.listener.stop(1)
    bench.store.close()


async def test_a_daily_timer_waits_for_its_hour_when_the_clock_is_set_back(invoker, tmp_path):
    clock = VirtualClock(START_AT)
    bench = TimerBench(invoker, tmp_path, clock, "0 1 15 * * *")
    await _settle()
    clock.advance_s(2 * 3_600)
    await _settle()
    clock.set_by_s(-3_600)
    for _ in range(119):
        clock.advance_s(60)
        await _settle()
    assert bench.runs == []
    clock.advance_s(61)
    await _settle()
    assert len(bench.runs) == 1
    bench.ends.release()
    await bench.listener.stop(1)
    bench.store.close()


async def test_a_restart_after_the_clock_was_set_back_goes_on_by_the_schedule(invoker, tmp_path):
    """What was written down is a year ahead: the timer would rest for all of it."""
    before = TimerBench(invoker, tmp_path, VirtualClock(START_AT + timedelta(days=365)))
    await before.listener.stop(0)
    before.store.close()
    clock = VirtualClock(START_AT)
    after = TimerBench(invoker, tmp_path, clock)
    after.ends.release()
    await _settle()
    clock.advance_s(301)
    await _settle()
    assert after.runs == [False]
    await after.listener.stop(1)
    after.store.close()


# -- queue listener


class QueueBench:
    """A queue function over a broker in virtual time; `hold` keeps calls running until released."""

    def __init__(
        self, invoker, clock, *, hold=False, sessions=False, cardinality=Cardinality.ONE, bounds=None, **options
    ):
        self.open_activities = 0
        self.admission = Admission(bounds or Bounds(), lambda: self.open_activities)
        self.calls, self.gate = [], asyncio.Event()
        if not hold:
            self.gate.set()

        async def handle(m):
            self.calls.append([x.get_body().decode() for x in m] if isinstance(m, list) else m.get_body().decode())
            await self.gate.wait()

        self.broker = SqliteQueueBroker(Path(":memory:"), clock.now)
        spec = FunctionSpec("handle", "handle", handle, True, QueueTrigger("m", "q", sessions, cardinality))
        service_bus = ServiceBusOptions(**options)
        turns = Turns(self.broker.transactions)
        self.listener = QueueListener(spec, self.broker, invoker, clock, service_bus, self.admission, turns)
        self.listener.start()

    def send(self, *texts, session_id=None):
        for text in texts:
            self.broker.send("q", OutgoingMessage(text.encode(), session_id=session_id))


async def test_no_more_calls_run_at_once_than_allowed(invoker):
    bench = QueueBench(invoker, VirtualClock(START_AT), hold=True, max_concurrent_calls=2)
    bench.send("a", "b", "c")
    await _settle()
    assert bench.calls == ["a", "b"]
    bench.gate.set()
    await _settle()
    assert bench.calls == ["a", "b", "c"]
    assert bench.broker.counts("q").active == 0
    await bench.listener.stop(1)


@pytest.mark.parametrize("sessions", [False, True])
async def test_a_full_disk_stops_receiving_only_for_as_long_as_it_is_full(invoker, sessions):
    clock = VirtualClock(START_AT)
    bench = QueueBench(invoker, clock, sessions=sessions)
    bench.send("a", session_id="s" if sessions else None)
    bench.broker._db.execute("PRAGMA query_only = ON")  # locking a message, or a session, fails
    await _settle()
    clock.advance_s(5)
    await _settle()
    assert bench.calls == []
    bench.broker._db.execute("PRAGMA query_only = OFF")
    clock.advance_s(1.5)
    await _settle()
    assert bench.calls == ["a"]
    await bench.listener.stop(1)


async def test_a_lock_that_could_not_be_renewed_on_a_full_disk_is_renewed_soon_after(invoker):
    clock = VirtualClock(START_AT)
    bench = QueueBench(invoker, clock, hold=True)
    bench.send("a")
    await _settle()
    bench.broker._db.execute("PRAGMA query_only = ON")
    clock.advance_s(31)
    bench.broker._db.execute("PRAGMA query_only = OFF")
    for _ in range(10):
        clock.advance_s(10)
        await _settle()
    assert bench.calls == ["a"], "it was delivered again while its call ran"
    bench.gate.set()
    await _settle()
    await bench.listener.stop(1)


@pytest.mark.parametrize("cardinality", [Cardinality.ONE, Cardinality.MANY])
@pytest.mark.parametrize("sessions", [False, True])
async def test_a_full_host_leaves_messages_where_they_are_until_there_is_room(invoker, sessions, cardinality):
    bench = QueueBench(invoker, VirtualClock(START_AT), sessions=sessions, cardinality=cardinality, bounds=Bounds(2, 1))
    bench.open_activities = 1
    bench.send("a", "b", "c", session_id="s" if sessions else None)
    await _settle()
    bench.admission.look()  # something ended, and the host is as full as before
    await _settle()
    assert bench.calls == []
    bench.open_activities = 0
    bench.admission.look()
    await _settle()
    flat = [text for call in bench.calls for text in ([call] if isinstance(call, str) else call)]
    assert flat == ["a", "b", "c"]
    assert (bench.broker.counts("q").active, bench.broker.counts("q").dead_letter) == (0, 0)
    await bench.listener.stop(1)


async def test_no_more_messages_are_taken_than_there_is_room_for_starts(invoker):
    bench = QueueBench(invoker, VirtualClock(START_AT), hold=True, bounds=Bounds(max_pending_starts=3))
    bench.admission.add("elsewhere")
    bench.send("a", "b", "c", "d")
    await _settle()
    assert bench.calls == ["a", "b"]
    bench.admission.remove("elsewhere")
    await _settle()
    assert bench.calls == ["a", "b", "c"]
    bench.gate.set()
    await _settle()
    assert bench.calls == ["a", "b", "c", "d"]
    await bench.listener.stop(1)


async def test_a_session_is_given_back_when_the_host_gets_full_in_the_middle_of_it(invoker):
    bench = QueueBench(invoker, VirtualClock(START_AT), hold=True, sessions=True, bounds=Bounds(2, 1))
    bench.send("a", "b", session_id="s")
    await _settle()
    bench.open_activities = 1
    bench.gate.set()
    await _settle()
    assert (bench.calls, bench.broker.counts("q").active) == (["a"], 1)
    bench.open_activities = 0
    bench.admission.look()
    await _settle()
    assert bench.calls == ["a", "b"]
    await bench.listener.stop(1)


async def test_a_batch_function_runs_one_batch_at_a_time(invoker):
    bench = QueueBench(invoker, VirtualClock(START_AT), hold=True, cardinality=Cardinality.MANY, max_batch_size=2)
    bench.send("a", "b", "c")
    await _settle()
    assert bench.calls == [["a", "b"]]
    bench.gate.set()
    await _settle()
    assert bench.calls == [["a", "b"], ["c"]]
    await bench.listener.stop(1)


async def test_a_long_call_keeps_its_lock_up_to_the_renewal_limit(invoker):
    clock = VirtualClock(START_AT)
    bench = QueueBench(invoker, clock, hold=True, max_renewal_s=300.0)
    bench.send("a")
    await _settle()
    for _ in range(9):
        clock.advance_s(30)
        await _settle()
    assert bench.calls == ["a"]  # 270 s on a 60 s lock
    for _ in range(4):
        clock.advance_s(30)
        await _settle()
    assert bench.calls == ["a", "a"]  # renewal given up: delivered again
    bench.gate.set()
    await _settle()
    assert bench.broker.counts("q").active == 0
    await bench.listener.stop(1)


async def test_without_auto_complete_messages_come_back_after_their_lock(invoker):
    clock = VirtualClock(START_AT)
    bench = QueueBench(invoker, clock, auto_complete=False)
    bench.send("a")
    await _settle()
    clock.advance_s(61)
    await _settle()
    assert bench.calls == ["a", "a"]
    await bench.listener.stop(1)


async def test_stopping_gives_unfinished_messages_back(invoker):
    bench = QueueBench(invoker, VirtualClock(START_AT), hold=True)
    bench.send("a")
    await _settle()
    await bench.listener.stop(0)
    [again] = bench.broker.receive("q")
    assert (again.message.body, again.delivery_count) == (b"a", 2)


async def test_sessions_run_side_by_side_each_in_order(invoker):
    bench = QueueBench(invoker, VirtualClock(START_AT), hold=True, sessions=True, max_concurrent_sessions=2)
    for session in ("x", "y", "z"):
        bench.send(f"{session}1", f"{session}2", session_id=session)
    await _settle()
    assert bench.calls == ["x1", "y1"]
    bench.gate.set()
    await _settle()
    await _settle()
    assert [call for call in bench.calls if call[0] == "z"] == ["z1", "z2"]
    assert bench.broker.counts("q").active == 0
    await bench.listener.stop(1)


# -- keys and lock


def test_keys_persist_and_damage_is_refused(tmp_path):
    first = KeyStore.open(tmp_path)
    assert KeyStore.open(tmp_path).master == first.master
    assert first.allows(AuthLevel.ADMIN, "f", first.master)
    assert not first.allows(AuthLevel.ADMIN, "f", first.durable)
    path = tmp_path / "keys.json"
    document = json.loads(path.read_text())
    document["functions"] = {"F": {"default": "own"}}
    path.write_text(json.dumps(document))
    path.chmod(0o644)
    own = KeyStore.open(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    assert own.allows(AuthLevel.FUNCTION, "f", "own")
    assert not own.allows(AuthLevel.FUNCTION, "g", "own")
    document["masterKey"] = ""
    path.write_text(json.dumps(document))
    with pytest.raises(HostError, match=r"host\.bad_keys"):
        KeyStore.open(tmp_path)


def test_no_key_matches_nothing_even_an_empty_one():
    assert not matches_any(None, [""])
    assert not matches_any("x", [])
    assert matches_any("ü", ["ü"])


def test_a_data_directory_has_one_host(tmp_path):
    refused = pytest.raises(HostError, match=r"host\.already_running: .*pid \d+")
    with instance_lock(tmp_path), refused, instance_lock(tmp_path):
        pass
    with instance_lock(tmp_path):
        pass
