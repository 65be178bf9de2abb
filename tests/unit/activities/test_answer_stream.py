"""Each delivery writes under its own number: no reader ever sees two texts mixed."""

import asyncio

import pytest

from activities import answer_stream
from activities.answer_stream import AnswerStream
from engine.domain.errors import LivoaError
from tests.support.world import World, plan_of, step


async def _stream(world):
    run = await world.runs.get("contoso", "run-1")
    stream = AnswerStream(run, world.deps.events)
    await stream.open()
    return stream


async def _world():
    world = World()
    await world.submit(plan_of(step("a")))
    return world


async def _log(world):
    events = await world.deps.events.read("contoso", "run-1", after_seq=0, limit=1000)
    return [(e.type.value, e.data) for e in events if e.type.value.startswith("answer.")]


def _text(log, attempt):
    deltas = [d for kind, d in log if kind == "answer.delta" and d["answer_attempt"] == attempt]
    assert [d["index"] for d in deltas] == list(range(len(deltas)))
    return "".join(d["text"] for d in deltas)


async def test_pieces_that_come_close_together_are_one_event():
    world = await _world()
    stream = await _stream(world)
    for piece in ("one ", "two ", "three"):
        await stream.write(piece)
    assert [kind for kind, _ in await _log(world)] == ["answer.started"]
    await stream.close()
    assert [d for kind, d in await _log(world) if kind == "answer.delta"] == [
        {"text": "one two three", "index": 0, "answer_attempt": 1}
    ]


async def test_held_text_is_written_after_a_moment_even_when_nothing_follows(monkeypatch):
    monkeypatch.setattr(answer_stream, "GATHER_S", 0.001)
    world = await _world()
    stream = await _stream(world)
    await stream.write("alone")
    for _ in range(200):
        await asyncio.sleep(0.005)
        if _text(await _log(world), 1):
            break
    assert _text(await _log(world), 1) == "alone"
    await stream.close()
    assert _text(await _log(world), 1) == "alone"


async def test_a_second_delivery_begins_anew_and_the_two_texts_do_not_mix():
    world = await _world()
    first, second = await _stream(world), await _stream(world)
    await first.write("first ")
    await second.write("second ")
    await first.write("text")
    await second.write("try")
    await asyncio.gather(first.close(), second.close())
    log = await _log(world)
    assert [kind for kind, _ in log if kind != "answer.delta"] == ["answer.started", "answer.restarted"]
    assert (_text(log, 1), _text(log, 2)) == ("first text", "second try")


async def test_a_restart_drops_what_is_held_and_counts_from_zero():
    world = await _world()
    stream = await _stream(world)
    await stream.write("bad")
    await stream.restart("model.timeout")
    await stream.write("good")
    await stream.close()
    log = await _log(world)
    assert (_text(log, 1), _text(log, 2)) == ("", "good")
    assert ("answer.restarted", {"answer_attempt": 2, "code": "model.timeout"}) in log


async def test_a_text_that_begins_anew_is_counted_anew():
    world = await _world()
    stream = await _stream(world)
    for text in ("one ", "two "):
        await stream.write(text * answer_stream.MAX_DELTA_CHARS)
    await stream.restart("model.timeout")
    await stream.write("good")
    await stream.close()
    assert _text(await _log(world), 2) == "good"


async def test_pieces_stay_in_order_when_the_log_is_slow(monkeypatch):
    monkeypatch.setattr(answer_stream, "GATHER_S", 0.0)
    world = await _world()
    stream = await _stream(world)
    append, pauses = world.deps.events.append, [0.05]

    async def slow(*args):
        await asyncio.sleep(pauses.pop() if pauses else 0)
        return await append(*args)

    monkeypatch.setattr(world.deps.events, "append", slow)
    await stream.write("one ")
    await asyncio.sleep(0.01)
    await stream.write("x" * answer_stream.MAX_DELTA_CHARS)
    await stream.close()
    assert _text(await _log(world), 1) == "one " + "x" * answer_stream.MAX_DELTA_CHARS


async def test_long_text_is_not_held_back():
    world = await _world()
    stream = await _stream(world)
    await stream.write("x" * answer_stream.MAX_DELTA_CHARS)
    assert len(_text(await _log(world), 1)) == answer_stream.MAX_DELTA_CHARS
    await stream.close()


async def test_an_error_of_the_log_reaches_the_writer(monkeypatch):
    monkeypatch.setattr(answer_stream, "GATHER_S", 0.0)
    world = await _world()
    stream = await _stream(world)

    async def broken(*_):
        raise LivoaError("store.unavailable", "no", status=503)

    monkeypatch.setattr(world.deps.events, "append", broken)
    await stream.write("a")
    await asyncio.sleep(0.02)
    with pytest.raises(LivoaError, match="no"):
        await stream.write("b")


async def test_writings_are_bounded():
    world = await _world()
    for _ in range(answer_stream.MAX_WRITINGS):
        await _stream(world)
    with pytest.raises(LivoaError) as caught:
        await _stream(world)
    assert caught.value.code == "answer.too_many_writings"
