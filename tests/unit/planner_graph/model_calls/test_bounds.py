"""What keeps one question from harming others: time, circuits, tokens, and what is billed without being said."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from engine.ports.budget import REPAIR_KEYS, DailyLimits, Share
from engine.ports.models import FailureCode, Message
from planner_graph.model_calls import Answered, Hop, Unanswered, gateway
from planner_graph.model_calls.replies import read_reply
from tests.support.scripted_models import GPT, LLAMA, ScriptedModels, reply, unavailable
from tests.unit.planner_graph.model_calls.desk import SCHEMA, Desk
from tests.unit.planner_graph.model_calls.test_ask import answered, failed, unanswered


class Slow(ScriptedModels):
    """Lets every call of one deployment run into its time-out."""

    def __init__(self, desk_clock: Any, *deployments: Any) -> None:
        super().__init__(*deployments)
        self.clock = desk_clock
        self.slow = "gpt-4o"

    async def complete(self, call: Any, *, traceparent: str | None = None) -> Any:
        if call.deployment == self.slow:
            self.calls.append(call)
            self.clock.advance(call.timeout_s)
            return failed("model.timeout", retryable=True)
        return await super().complete(call, traceparent=traceparent)


@pytest.mark.parametrize("deadline_s", [240.0, 120.0, 30.0])
async def test_one_slow_deployment_leaves_time_for_the_next(deadline_s: float) -> None:
    desk = Desk()
    desk.models = Slow(desk.clock, GPT, LLAMA)
    desk.deadline_s = deadline_s
    desk.start()
    desk.models.script("llama", reply('{"n": 3}'))
    asked = answered(await desk.ask())
    assert asked.hops == (Hop("gpt-4o", "model.timeout"),)
    slow, fast = desk.models.calls
    assert slow.timeout_s <= deadline_s / 2 <= fast.timeout_s or fast.timeout_s == 90.0


async def test_a_slow_router_leaves_time_for_planning() -> None:
    desk = Desk()
    desk.models = Slow(desk.clock, GPT)
    desk.start()
    await desk.open()
    began_at = desk.clock.now()
    asked = await desk.gateway.ask(desk.site(), "router", [Message("user", "x")], SCHEMA, "output", 100)
    assert unanswered(asked).code in ("model.timeout", "model.deadline")
    assert (desk.clock.now() - began_at).total_seconds() <= 45.0


async def test_requests_that_a_server_will_not_take_do_not_open_the_circuit_for_others() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", *[failed("model.unavailable")] * 8, reply('{"n": 7}'))
    assert {unanswered(await desk.ask(f"question {n}")).code for n in range(8)} == {"model.unavailable"}
    assert answered(await desk.ask("another tenant's")).value == {"n": 7}


@pytest.mark.parametrize(
    ("code", "tokens"), [("model.invalid_output", 500), ("model.content_filtered", 0), ("model.context_too_long", 0)]
)
async def test_what_was_billed_without_being_said_is_paid_from_above(code: FailureCode, tokens: int) -> None:
    desk = Desk()
    desk.models.script("gpt-4o", failed(code))
    unanswered(await desk.ask())
    record = (await desk.records())[1]
    assert record.body["usage"]["estimated"]
    assert record.body["usage"]["output_tokens"] == tokens
    assert (await desk.money()).spent_tokens == record.body["usage"]["input_tokens"] + tokens > tokens + 40


async def test_a_deployment_that_comes_back_is_probed_by_two_calls_at_a_time() -> None:
    desk = Desk(limit_micro_usd=10**9)
    desk.models.script("gpt-4o", *[unavailable()] * 5)
    for number in range(2):
        await desk.ask(f"question {number}")
    desk.clock.advance(61)
    under_way, release = [], asyncio.Event()

    async def waiting(call: Any, *, traceparent: str | None = None) -> Any:
        under_way.append(call)
        await release.wait()
        return reply('{"n": 7}')

    desk.models.complete = waiting
    asked = [asyncio.create_task(desk.ask(f"at once {number}")) for number in range(6)]
    for _ in range(500):
        await asyncio.sleep(0)
    assert len(under_way) == 2
    release.set()
    codes = [one.code if isinstance(one, Unanswered) else "" for one in await asyncio.gather(*asked)]
    assert sorted(codes) == ["", "", *["model.breaker_open"] * 4]


@pytest.mark.parametrize("limits", [{"limit_tokens": 100}, {"daily": DailyLimits(tokens=100)}])
async def test_tokens_that_a_limit_does_not_cover_are_not_used(limits: dict[str, Any]) -> None:
    desk = Desk()
    await desk.budgets.open("contoso", "run-1", limit_micro_usd=desk.limit_micro_usd, **limits)
    assert unanswered(await desk.ask()).code == "budget.exhausted"
    assert desk.models.calls == []
    assert (await desk.money()).reserved_tokens == 0


async def test_repairs_of_a_run_share_a_bound_that_is_smaller_than_the_runs() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", *[reply('{"n": 1}')] * 40)
    share, answers = Share(REPAIR_KEYS, 10_000), []
    for version in range(2, 40):
        asked = await desk.ask(f"repair {version}", plan_version=version, share=share)
        answers.append(asked.code if isinstance(asked, Unanswered) else "")
    assert answers[0] == ""
    assert answers[-1] == "budget.exhausted"
    assert 0 < (await desk.money()).spent_micro_usd <= 10_000
    assert isinstance(await desk.ask("the answer"), Answered), "the run has money for the rest of its work"


async def test_reading_a_long_reply_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    others_went_on = threading.Event()

    def slowly(text: str, schema: Any) -> Any:
        assert others_went_on.wait(5)
        return read_reply(text, schema)

    monkeypatch.setattr(gateway, "read_reply", slowly)
    desk = Desk()
    desk.models.script("gpt-4o", reply('{"n": 7}'))
    asyncio.get_running_loop().call_later(0.05, others_went_on.set)
    assert answered(await desk.ask()).value == {"n": 7}
