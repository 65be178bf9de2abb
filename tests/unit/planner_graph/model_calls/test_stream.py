"""Streaming a reply: pieces as they come, one text in the end, and a clean stop at every bound."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from engine.domain.errors import LivoaError
from engine.ports.models import Message, ModelDelta, ModelFailure, ModelUsage
from planner_graph.model_calls import Answered, Hop, Unanswered
from tests.support.scripted_models import GPT, LLAMA, ScriptedModels, reply, streamed, unavailable
from tests.unit.planner_graph.model_calls.desk import Desk

TEXT = "Paid search lost 12 % of its return in Q3."


async def test_pieces_come_in_order_and_the_whole_text_at_the_end() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", streamed(TEXT))
    asked = await desk.stream()
    assert isinstance(asked, Answered)
    assert asked.value == asked.text == TEXT == "".join(desk.deltas)
    assert len(desk.deltas) == 11
    assert desk.restarts == []
    assert desk.models.closed == 1
    assert (await desk.money()).spent_micro_usd == 450
    assert await desk.trail() == ["planner.prompt", "planner.completion"]


async def test_a_kept_text_comes_again_without_a_request() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", streamed(TEXT))
    await desk.stream()
    desk.deltas.clear()
    desk.start()
    asked = await desk.stream()
    assert isinstance(asked, Answered)
    assert asked.reply.reused
    assert desk.deltas == [TEXT]
    assert len(desk.models.calls) == 1


async def test_a_stream_that_breaks_off_begins_anew_and_says_so() -> None:
    desk = Desk(ScriptedModels(GPT, LLAMA))
    broken = ModelFailure("model.unavailable", "no", retryable=True, usage=ModelUsage(100, 4))
    desk.models.script("gpt-4o", [ModelDelta("Paid "), broken], [OSError("gone")], [ModelDelta("Half"), unavailable()])
    desk.models.script("llama", streamed(TEXT))
    asked = await desk.stream()
    assert isinstance(asked, Answered)
    assert asked.hops == (Hop("gpt-4o", "model.unavailable"),)
    assert desk.restarts == ["model.unavailable", "model.unavailable"]  # nothing was handed on by the second request
    assert "".join(desk.deltas) == TEXT
    assert desk.models.closed == 4


async def test_a_stream_beyond_its_tokens_is_stopped_settled_and_told() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", streamed("word " * 1_000))
    asked = await desk.stream(max_output_tokens=50)
    assert isinstance(asked, Unanswered)
    assert asked.code == "model.over_budget"
    assert asked.text_for_repair == "".join(desk.deltas)
    assert 280 <= len(asked.text_for_repair) <= 300
    assert desk.models.closed == 1
    money = await desk.money()
    assert money.reserved_micro_usd == money.reserved_tokens == 0
    assert money.spent_tokens >= 100
    assert (await desk.records())[1].body["code"] == "model.over_budget"
    desk.start()
    again = await desk.stream(max_output_tokens=50)
    assert isinstance(again, Unanswered)
    assert asked.reply is not None
    assert again == replace(asked, reply=replace(asked.reply, reused=True))
    assert len(desk.models.calls) == 1


async def test_a_stream_ends_at_the_deadline() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", streamed(TEXT))

    async def slow(piece: str) -> None:
        desk.deltas.append(piece)
        desk.clock.advance(50)

    await desk.open()
    asked = await desk.gateway.stream(desk.site(), "synthesiser", [Message("user", "x")], 500, on_delta=slow)
    assert isinstance(asked, Unanswered)
    assert asked.code == "model.deadline"
    assert len(desk.deltas) == 5
    assert desk.models.closed == 1
    assert (await desk.money()).reserved_tokens == 0


async def test_a_consumer_that_fails_closes_the_stream_and_is_heard() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", streamed(TEXT))

    async def broken(piece: str) -> None:
        raise LivoaError("store.unavailable", "the event log is down", status=503)

    await desk.open()
    with pytest.raises(LivoaError, match="event log"):
        await desk.gateway.stream(desk.site(), "synthesiser", [Message("user", "x")], 500, on_delta=broken)
    assert desk.models.closed == 1


async def test_whoever_is_cancelled_closes_the_stream() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", streamed(TEXT))
    reached = asyncio.Event()

    async def hang(piece: str) -> None:
        reached.set()
        await asyncio.Event().wait()

    await desk.open()
    task = asyncio.create_task(
        desk.gateway.stream(desk.site(), "synthesiser", [Message("user", "x")], 500, on_delta=hang)
    )
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert desk.models.closed == 1
    assert await desk.budgets.close("contoso", "run-1", prefix="model/", as_spent=True) == 1


async def test_a_text_that_another_delivery_finished_first_replaces_what_was_streamed() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", streamed("the first text"), streamed("the second text"))
    await desk.stream()

    async def nothing_yet(key: object) -> None:
        return None

    desk.results.get = nothing_yet
    desk.deltas.clear()
    asked = await desk.stream()
    assert isinstance(asked, Answered)
    assert asked.text == "".join(desk.deltas) == "the first text"
    assert desk.restarts == ["answer.superseded"]


async def test_half_a_surrogate_pair_does_not_get_through() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", [ModelDelta("a\ud800"), reply("a\ud800")])
    asked = await desk.stream()
    assert isinstance(asked, Answered)
    assert asked.text == "".join(desk.deltas) == "a\ufffd"


async def test_a_stream_cut_by_its_length_gives_back_what_came() -> None:
    desk = Desk()
    truncated = ModelFailure("model.truncated", "cut", usage=ModelUsage(100, 500))
    desk.models.script("gpt-4o", [ModelDelta("Paid "), ModelDelta("search"), truncated])
    asked = await desk.stream()
    assert isinstance(asked, Unanswered)
    assert (asked.code, asked.repairable, asked.text_for_repair) == ("model.truncated", True, "Paid search")
