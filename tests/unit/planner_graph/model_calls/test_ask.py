"""Asking for one reply: what is made, what is recorded, what is paid, and what is told when there is no answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from engine.domain.errors import LivoaError
from engine.evidence.canonical import canonical_bytes
from engine.ports.models import FailureCode, Message, ModelFailure, ModelUsage
from planner_graph.model_calls import Answered, Hop, Unanswered
from tests.support.scripted_models import GPT, LLAMA, ScriptedModels, reply, unavailable
from tests.unit.planner_graph.model_calls.desk import SCHEMA, SECRET, Desk


def failed(code: FailureCode, **fields: Any) -> ModelFailure:
    return ModelFailure(code, "no", **fields)


def answered(asked: object) -> Answered:
    assert isinstance(asked, Answered), asked
    return asked


def unanswered(asked: object) -> Unanswered:
    assert isinstance(asked, Unanswered), asked
    return asked


async def test_a_reply_is_parsed_paid_and_on_record() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply('{"n": 7}'))
    asked = answered(await desk.ask())
    assert asked.value == {"n": 7}
    assert asked.hops == ()
    assert asked.reply.cost_micro_usd == 100 * 2.5 + 20 * 10
    money = await desk.money()
    assert (money.reserved_micro_usd, money.spent_micro_usd, money.reserved_tokens, money.spent_tokens) == (
        0,
        450,
        0,
        120,
    )
    assert await desk.trail() == ["planner.prompt", "planner.completion"]
    call = desk.models.calls[0]
    assert (call.max_output_tokens, call.seed, call.schema) == (500, asked.reply.seed, SCHEMA)


async def test_the_record_commits_to_the_content_and_does_not_have_it() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply('{"n": 7}'))
    asked = answered(await desk.ask())
    prompt, completion = await desk.records()
    assert prompt.body["prompt_file"] == {"name": "plan.v1.md", "sha256": "f" * 64}
    assert prompt.body["prompt_sha256"] == completion.body["prompt_sha256"] == asked.reply.prompt_sha256
    assert completion.body["output_sha256"] == asked.reply.output_sha256
    assert completion.body["usage"]["input_tokens"] == 100
    assert (completion.body["seed"], completion.body["latency_ms"]) == (asked.reply.seed, 500)
    for record in (prompt, completion):
        canonical_bytes(record.body)
        assert SECRET not in record.model_dump_json()
        assert '{\\"n\\": 7}' not in record.model_dump_json()
    kept = {data for objects in desk.payloads._objects.values() for data in objects.values()}
    assert any(SECRET.encode() in data for data in kept)
    assert b'{"n": 7}' in kept


async def test_spans_and_metrics_have_the_figures_and_no_content(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply('{"n": 4242}'))
    await desk.ask()
    ((name, span),) = desk.telemetry.spans
    assert (name, span["kind"]) == ("chat gpt-4o", "client")
    assert span["gen_ai.provider.name"] == "azure.ai.openai"
    assert span["gen_ai.response.model"] == "gpt-4o-2024-11-20"
    assert (span["gen_ai.usage.input_tokens"], span["gen_ai.usage.output_tokens"]) == (100, 20)
    assert span["app.audit.ref"] == (await desk.records())[1].entry_id
    tokens = [
        (value, labels["gen_ai.token.type"]) for metric, value, labels in desk.telemetry.measured if "token" in metric
    ]
    assert tokens == [(100, "input"), (20, "output")]
    assert [value for metric, value, _ in desk.telemetry.measured if metric.endswith("duration")] == [0.5]
    seen = f"{desk.telemetry.spans}{desk.telemetry.measured}{caplog.text}"
    assert SECRET not in seen
    assert "4242" not in seen
    assert "contoso" not in seen


async def test_the_same_question_is_answered_from_what_was_kept() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply('{"n": 7}'))
    first = answered(await desk.ask())
    desk.start()
    again = answered(await desk.ask())
    assert again == replace(first, reply=replace(first.reply, reused=True))
    assert len(desk.models.calls) == 1
    assert (await desk.money()).spent_micro_usd == 450
    assert await desk.trail() == ["planner.prompt", "planner.completion"]


@pytest.mark.parametrize("change", [{"node": "repair.1"}, {"plan_version": 2}, {"text": "another prompt"}])
async def test_another_node_version_or_prompt_is_another_question(change: dict[str, Any]) -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply(), reply())
    await desk.ask()
    await desk.ask(**change)
    assert len(desk.models.calls) == 2


async def test_other_parameters_are_another_question() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", *[reply('{"n": 7}')] * 7)
    await desk.open()
    words = [Message("user", "x")]
    asked = [
        await desk.gateway.ask(desk.site(), "planner", words, SCHEMA, "output", 500),
        await desk.gateway.ask(desk.site(), "planner", words, SCHEMA, "output", 400),
        await desk.gateway.ask(desk.site(), "planner", words, SCHEMA, "other", 500),
        await desk.gateway.ask(desk.site(), "planner", words, {**SCHEMA, "required": []}, "output", 500),
        await desk.gateway.ask(desk.site(), "router", words, SCHEMA, "output", 500),
        await desk.gateway.ask(desk.site(), "planner", words, SCHEMA, "output", 500, temperature=0.5),
        await desk.gateway.ask(desk.site(), "planner", words, SCHEMA, "output", 500, seed=1),
    ]
    assert len({answered(one).reply.prompt_sha256 for one in asked}) == len(desk.models.calls) == 7


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("where", ["settle", "audit"])
async def test_a_process_that_dies_after_the_reply_was_kept_does_not_pay_twice(where: str) -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply('{"n": 7}'))
    dying: Any = desk.budgets if where == "settle" else desk.audit
    name = "settle" if where == "settle" else "append"
    real, calls = getattr(dying, name), []

    async def die(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if where == "settle" or len(calls) == 2:
            raise Crash
        return await real(*args, **kwargs)

    setattr(dying, name, die)
    with pytest.raises(Crash):
        await desk.ask()
    setattr(dying, name, real)
    desk.start()
    assert answered(await desk.ask()).reply.reused
    assert len(desk.models.calls) == 1
    money = await desk.money()
    assert (money.reserved_micro_usd, money.spent_micro_usd) == (0, 450)
    assert await desk.trail() == ["planner.prompt", "planner.completion"]


async def test_a_process_that_dies_in_a_call_has_spent_what_was_set_aside() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", Crash(), reply('{"n": 7}'))

    async def die(*_: Any, **__: Any) -> Any:
        raise Crash

    real, desk.models.complete = desk.models.complete, die
    with pytest.raises(Crash):
        await desk.ask()
    set_aside = (await desk.money()).reserved_micro_usd
    assert set_aside > 5_000
    desk.models.complete = real
    desk.models.steps["gpt-4o"].pop(0)
    desk.start()
    assert answered(await desk.ask()).reply.requests == 2
    money = await desk.money()
    assert (money.reserved_micro_usd, money.spent_micro_usd) == (0, set_aside + 450)
    assert await desk.trail() == ["planner.prompt", "planner.prompt", "planner.completion"]


async def test_of_two_deliveries_at_once_the_first_reply_stands() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply('{"n": 1}'), reply('{"n": 2}'))
    real = desk.results.get

    async def nothing_yet(key: Any) -> None:
        return None

    desk.results.get = nothing_yet
    first = answered(await desk.ask())
    second = answered(await desk.ask())
    desk.results.get = real
    assert first.value == second.value == {"n": 1}
    assert second.reply.reused
    assert (await desk.money()).spent_micro_usd == 900


async def test_without_budget_no_call_is_made() -> None:
    desk = Desk(limit_micro_usd=100)
    asked = unanswered(await desk.ask())
    assert (asked.code, asked.hops) == ("budget.exhausted", (Hop("gpt-4o", "budget.exhausted"),))
    assert desk.models.calls == []
    assert await desk.trail() == ["budget.exhausted"]
    assert (await desk.money()).reserved_micro_usd == 0


async def test_a_deployment_without_a_price_still_fits_an_exhausted_budget() -> None:
    desk = Desk(ScriptedModels(GPT, LLAMA), limit_micro_usd=100)
    desk.models.script("llama", reply('{"n": 3}'))
    asked = answered(await desk.ask())
    assert (asked.value, asked.hops) == ({"n": 3}, (Hop("gpt-4o", "budget.exhausted"),))
    assert (await desk.money()).spent_micro_usd == 0


async def test_without_an_account_no_call_is_made() -> None:
    desk = Desk()
    asked = await desk.gateway.ask(desk.site(run_id="run-9"), "planner", [Message("user", "x")], None, "text", 10)
    assert unanswered(asked).code == "budget.not_open"
    assert desk.models.calls == []


@pytest.mark.parametrize("failing", [1, 2])
async def test_when_the_evidence_cannot_be_written_nothing_is_used(failing: int) -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply('{"n": 7}'))
    real, calls = desk.audit.append, []

    async def broken(entry: Any) -> Any:
        calls.append(entry)
        if len(calls) == failing:
            raise OSError("disk")
        return await real(entry)

    desk.audit.append = broken
    assert unanswered(await desk.ask()).code == "audit.unavailable"
    assert len(desk.models.calls) == failing - 1
    assert (await desk.money()).reserved_micro_usd == 0
    again = answered(await desk.ask())
    assert again.value == {"n": 7}
    assert len(desk.models.calls) == 1


async def test_a_store_that_fails_is_an_outcome() -> None:
    desk = Desk()

    async def down(*_: Any, **__: Any) -> Any:
        raise LivoaError("store.unavailable", "no", status=503)

    desk.budgets.reserve = down
    assert unanswered(await desk.ask()).code == "store.unavailable"
    assert desk.models.calls == []


async def test_a_server_that_fails_is_tried_again_with_pauses_that_are_always_the_same() -> None:
    pauses = []
    for _ in range(2):
        desk = Desk()
        desk.models.script("gpt-4o", unavailable(), OSError("boom"), reply('{"n": 7}'))
        asked = answered(await desk.ask())
        assert (asked.hops, asked.reply.requests) == ((), 3)
        pauses.append(desk.slept)
    assert pauses[0] == pauses[1]
    assert 0.25 <= pauses[0][0] <= 0.5 <= pauses[0][1] <= 1.0
    assert await desk.trail() == ["planner.prompt", "planner.completion"] * 3
    assert (await desk.money()).spent_micro_usd == 450


async def test_after_two_retries_the_next_deployment_is_asked() -> None:
    desk = Desk(ScriptedModels(GPT, LLAMA))
    desk.models.script("gpt-4o", *[unavailable()] * 3)
    desk.models.script("llama", reply('{"n": 3}'))
    asked = answered(await desk.ask())
    assert asked.hops == (Hop("gpt-4o", "model.unavailable"),)
    assert asked.reply.deployment == "llama"


async def test_when_every_deployment_fails_the_last_reason_is_told_with_all_hops() -> None:
    desk = Desk(ScriptedModels(GPT, LLAMA))
    desk.models.script("gpt-4o", failed("model.unauthorised"))
    desk.models.script("llama", *[failed("model.timeout", retryable=True)] * 3)
    asked = unanswered(await desk.ask())
    assert asked.code == "model.timeout"
    assert asked.hops == (Hop("gpt-4o", "model.unauthorised"), Hop("llama", "model.timeout"))
    assert not asked.repairable
    assert (await desk.money()).spent_tokens > 0  # prompts that timed out may be billed


async def test_a_pause_that_the_server_asks_for_is_kept_when_it_fits() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", failed("model.rate_limited", retryable=True, retry_after_s=30.0), reply('{"n": 7}'))
    assert answered(await desk.ask()).value == {"n": 7}
    assert desk.slept == [30.0]


async def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", failed("model.rate_limited", retryable=True, retry_after_s=240.0))
    assert unanswered(await desk.ask()).code == "model.rate_limited"
    assert desk.slept == []


async def test_nobody_waits_long_while_another_deployment_is_left() -> None:
    desk = Desk(ScriptedModels(GPT, LLAMA))
    desk.models.script("gpt-4o", failed("model.rate_limited", retryable=True, retry_after_s=30.0))
    desk.models.script("llama", reply('{"n": 3}'))
    assert answered(await desk.ask()).hops == (Hop("gpt-4o", "model.rate_limited"),)
    assert desk.slept == []


@pytest.mark.parametrize("code", ["model.content_filtered", "model.refused"])
async def test_a_filter_or_a_refusal_is_told_and_not_got_around(code: FailureCode) -> None:
    desk = Desk(ScriptedModels(GPT, LLAMA))
    desk.models.script("gpt-4o", failed(code, usage=ModelUsage(100, 2)))
    for _ in range(2):
        asked = unanswered(await desk.ask())
        assert (asked.code, asked.repairable, asked.hops) == (code, False, ())
        desk.start()
    assert len(desk.models.calls) == 1
    assert (await desk.money()).spent_micro_usd == 270


async def test_a_reply_cut_by_its_length_can_be_repaired() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply('{"n": ', finish_reason="length"))
    asked = unanswered(await desk.ask())
    assert (asked.code, asked.repairable, asked.text_for_repair) == ("model.truncated", True, '{"n": ')


@pytest.mark.parametrize(
    ("text", "code", "pointer"),
    [
        ("no JSON at all", "json.syntax", ""),
        ('{"n": 1} and more', "json.trailing_data", ""),
        ('{"n": 1, "n": 2}', "json.duplicate_key", "/n"),
        ('{"n": NaN}', "json.not_a_number", "/n"),
        ("[" * 70 + "]" * 70, "json.too_deep", ""),
        ('{"n": "one"}', "schema.type", "/n"),
        ('{"n": 1, "secret": 2}', "schema.additionalProperties", ""),
        ("{}", "schema.required", ""),
        ("\ud800", "json.syntax", ""),
        ('{"n": "\\ud800"}', "json.lone_surrogate", "/n"),
    ],
)
async def test_a_reply_that_does_not_fit_can_be_repaired(text: str, code: str, pointer: str) -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply(text))
    for _ in range(2):
        asked = unanswered(await desk.ask())
        assert (asked.code, asked.repairable) == ("model.invalid_output", True)
        assert (asked.violations[0].code, asked.violations[0].pointer) == (code, pointer)
        assert "secret" not in asked.violations[0].message
        assert asked.reply is not None
    assert len(desk.models.calls) == 1


async def test_what_is_given_back_for_repair_is_bounded() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", reply(json.dumps([0] * 100_000)))
    asked = unanswered(await desk.ask())
    assert len(asked.text_for_repair) == 8_000
    assert len(asked.violations) <= 20


async def test_an_empty_reply_is_asked_for_again() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", failed("model.invalid_output", retryable=True), reply('{"n": 7}'))
    assert answered(await desk.ask()).value == {"n": 7}


async def test_without_time_nothing_is_asked() -> None:
    desk = Desk()
    desk.deadline_s = 0.5
    assert unanswered(await desk.ask()).code == "model.deadline"
    desk.deadline_s = 20.0
    desk.models.script("gpt-4o", reply())
    await desk.ask("again")
    assert desk.models.calls[0].timeout_s == 20.0


async def test_what_the_egress_guard_refused_is_on_record_too() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", failed("model.not_configured", egress="egress.address_blocked"))
    unanswered(await desk.ask())
    assert await desk.trail() == ["planner.prompt", "egress.refused", "planner.completion"]
    refused = (await desk.records())[1]
    assert (refused.body["deployment"], refused.body["code"]) == ("gpt-4o", "egress.address_blocked")


async def test_without_deployments_it_says_so() -> None:
    desk = Desk()
    desk.models.deployments = ()
    assert unanswered(await desk.ask()) == Unanswered("model.not_configured")


async def test_a_dead_deployment_is_left_alone_and_found_again() -> None:
    desk = Desk(ScriptedModels(GPT, LLAMA))
    desk.models.script("gpt-4o", *[unavailable()] * 5)
    desk.models.script("llama", *[reply('{"n": 3}')] * 3)
    reasons = [answered(await desk.ask(f"question {n}")).hops[0].reason for n in range(3)]
    assert reasons == ["model.unavailable", "model.breaker_open", "model.breaker_open"]
    assert [call.deployment for call in desk.models.calls].count("gpt-4o") == 5
    assert [m for m, _, _ in desk.telemetry.measured if m == "app.breaker.opened"] == ["app.breaker.opened"]
    desk.clock.advance(61)
    desk.models.script("gpt-4o", reply('{"n": 1}'))
    assert answered(await desk.ask("question 4")).reply.deployment == "gpt-4o"


async def test_wrong_credentials_do_not_open_the_circuit() -> None:
    desk = Desk()
    desk.models.script("gpt-4o", *[failed("model.unauthorised")] * 8)
    codes = {unanswered(await desk.ask(f"question {n}")).code for n in range(8)}
    assert codes == {"model.unauthorised"}


async def test_requests_for_one_question_are_bounded_over_all_deliveries() -> None:
    desk = Desk(limit_micro_usd=10**9)
    desk.models.script("gpt-4o", *[unavailable()] * 100)
    for _ in range(30):
        desk.start()
        desk.clock.advance(600)
        last = unanswered(await desk.ask())
    assert last.code == "model.requests_exhausted"
    assert len(desk.models.calls) == 40


@pytest.mark.parametrize("node", ["", "a/b", "x" * 101])
async def test_a_node_is_a_wire_id(node: str) -> None:
    with pytest.raises(ValueError, match="wire id"):
        await Desk().ask(node=node)
