"""The gateway over the real client and the real stores, against a scripted provider on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.azure_openai import AzureOpenAiChatModels, ModelEndpoint
from engine.adapters.memory import SystemClock
from engine.adapters.sql import Database, SqlAuditLog, SqlBudgetLedger, SqlModelResults, SqlRunKeys
from engine.domain.tenant import ModelChoice, TenantConfig
from engine.ports.models import Message, ModelDeployment
from planner_graph.model_calls import Answered, Asked, CallSite, GatewayRules, Hop, ModelGateway, Unanswered
from tests.support import model_server as provider
from tests.support.model_server import ModelServer
from tests.support.payloads import sealed_payloads
from tests.support.world import QuietTelemetry

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["answer"],
    "properties": {"answer": {"type": "string"}},
}
PRICED = {"input_micro_usd_per_mtok": 2_500_000, "output_micro_usd_per_mtok": 10_000_000}
TENANT = TenantConfig(
    tenant_id="contoso",
    display_name="Contoso",
    models=ModelChoice(planner=("big", "small"), synthesiser=("big", "small")),
)


class Process:
    """One process: its own clients, breakers and connections over the stores in ``path``."""

    def __init__(self, server: ModelServer, path: Path, **rules: Any) -> None:
        self.clock = SystemClock()
        self.database = Database(f"sqlite:///{path / 'livoa.db'}", self.clock)
        endpoints = [
            ModelEndpoint(
                ModelDeployment("big", "gpt-4o", "azure.ai.openai", **PRICED), "openai_compatible", server.url
            ),
            ModelEndpoint(ModelDeployment("small", "llama", "vllm", open_weight=True), "openai_compatible", server.url),
        ]
        self.models = AzureOpenAiChatModels(endpoints)
        self.budgets, self.audit = SqlBudgetLedger(self.database), SqlAuditLog(self.database)
        self.gateway = ModelGateway(
            self.models,
            SqlModelResults(self.database),
            self.budgets,
            self.audit,
            sealed_payloads(path, keys=SqlRunKeys(self.database)),
            self.clock,
            QuietTelemetry(),
            rules=GatewayRules(**rules),
        )

    def site(self, deadline_s: float = 60.0) -> CallSite:
        return CallSite(TENANT, "run-1", "tid:ana", 1, "plan", self.clock.now() + timedelta(seconds=deadline_s))

    async def open(self, limit_micro_usd: int = 1_000_000) -> None:
        await self.budgets.open("contoso", "run-1", limit_micro_usd=limit_micro_usd)

    async def ask(self, text: str = "why", *, deadline_s: float = 60.0) -> Asked:
        messages = [Message("user", text)]
        return await self.gateway.ask(self.site(deadline_s), "planner", messages, SCHEMA, "plan", 200)

    async def trail(self) -> list[str]:
        return [record.type.value for record in await self.audit.read("contoso", after_seq=0, limit=99)]

    async def close(self) -> None:
        await self.models.close()
        await self.database.dispose()


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
async def process(server: ModelServer, tmp_path: Path) -> AsyncIterator[Process]:
    opened = Process(server, tmp_path)
    await opened.open()
    yield opened
    await opened.close()


async def test_an_answer_is_paid_and_recorded_as_the_provider_counts(server: ModelServer, process: Process) -> None:
    usage = {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}
    server.script([provider.as_json({"answer": "so"}, usage=usage)])
    asked = await process.ask()
    assert isinstance(asked, Answered)
    assert asked.value == {"answer": "so"}
    assert (asked.reply.usage.input_tokens, asked.reply.usage.output_tokens) == (120, 30)
    state = await process.budgets.state("contoso", "run-1")
    assert state is not None
    assert (state.reserved_micro_usd, state.spent_micro_usd, state.spent_tokens) == (0, 600, 150)
    assert await process.trail() == ["planner.prompt", "planner.completion"]
    body = server.requests[0].body
    assert (body["seed"], body["temperature"], body["max_tokens"]) == (asked.reply.seed, 0.0, 200)


async def test_a_process_that_died_before_its_plan_was_stored_does_not_ask_again(
    server: ModelServer, process: Process, tmp_path: Path
) -> None:
    server.script([provider.as_json({"answer": "so"})])
    first = await process.ask()
    other = Process(server, tmp_path)  # the activity is delivered again, to another process
    again = await other.ask()
    await other.close()
    assert isinstance(first, Answered)
    assert isinstance(again, Answered)
    assert again.value == first.value
    assert again.reply.reused
    assert len(server.requests) == 1
    assert await process.trail() == ["planner.prompt", "planner.completion"]


async def test_trouble_leads_to_a_retry_and_then_to_the_fallback(server: ModelServer, process: Process) -> None:
    server.script([provider.as_json({"answer": "small"})], model="llama")
    server.script(
        [provider.rate_limited(retry_after_ms=20), provider.failure(503), provider.failure(401)], model="gpt-4o"
    )
    asked = await process.ask()
    assert isinstance(asked, Answered)
    assert asked.hops == (Hop("big", "model.unauthorised"),)
    assert (asked.reply.deployment, asked.reply.requests, asked.reply.cost_micro_usd) == ("small", 4, 0)


@pytest.mark.parametrize(
    ("answer", "code", "repairable"),
    [
        (provider.filtered_prompt(), "model.content_filtered", False),
        (provider.filtered_reply(), "model.content_filtered", False),
        (provider.refused(), "model.refused", False),
        (provider.truncated('{"answer": "s'), "model.truncated", True),
        (provider.text("so"), "model.invalid_output", True),
        (provider.as_json({"reply": "so"}), "model.invalid_output", True),
    ],
)
async def test_a_reply_that_is_no_answer_is_told_for_what_it_is(
    server: ModelServer, process: Process, answer: provider.Answer, code: str, repairable: bool
) -> None:
    server.script([answer])
    asked = await process.ask()
    assert isinstance(asked, Unanswered)
    assert (asked.code, asked.repairable) == (code, repairable)
    assert len(server.requests) == 1


async def test_a_server_that_is_too_slow_does_not_outlast_the_deadline(server: ModelServer, process: Process) -> None:
    server.script(provider.always(provider.slow(provider.as_json({"answer": "late"}), before_headers_s=30)))
    await process.ask("load the libraries", deadline_s=0.5)
    asked = await asyncio.wait_for(process.ask(deadline_s=1.5), 10)
    assert isinstance(asked, Unanswered)
    assert asked.code in {"model.timeout", "model.deadline"}


async def test_a_stream_that_writes_too_much_is_hung_up_on(server: ModelServer, process: Process) -> None:
    server.script([provider.slow(provider.text("word " * 2_000), between_pieces_s=0.001)])
    pieces: list[str] = []

    async def keep(piece: str) -> None:
        pieces.append(piece)

    asked = await process.gateway.stream(process.site(), "synthesiser", [Message("user", "x")], 40, on_delta=keep)
    assert isinstance(asked, Unanswered)
    assert asked.code == "model.over_budget"
    assert 0 < len("".join(pieces)) <= 240
    assert await asyncio.to_thread(server.recorded[0].gone.wait, 5)
    state = await process.budgets.state("contoso", "run-1")
    assert state is not None
    assert (state.reserved_tokens, state.reserved_micro_usd) == (0, 0)
    assert state.spent_tokens > 0


async def test_a_torn_stream_is_told_anew_by_the_next_request(server: ModelServer, process: Process) -> None:
    text = "Paid search lost 12 % of its return in Q3."
    server.script([provider.cut(provider.text(text), 3), provider.text(text)])
    pieces: list[str] = []
    restarts: list[str] = []

    async def keep(piece: str) -> None:
        pieces.append(piece)

    async def anew(reason: str) -> None:
        restarts.append(reason)
        pieces.clear()

    asked = await process.gateway.stream(
        process.site(), "synthesiser", [Message("user", "x")], 200, on_delta=keep, on_restart=anew
    )
    assert isinstance(asked, Answered)
    assert "".join(pieces) == asked.text == text
    assert restarts == ["model.unavailable"]


def content_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.glob("livoa.db*"))


async def test_neither_rows_nor_logs_have_the_content(
    server: ModelServer, process: Process, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.script([provider.failure(500, message="canary-provider"), provider.as_json({"answer": "canary-reply"})])
    await process.ask("canary-prompt")
    database = content_of(tmp_path)
    for canary in ("canary-prompt", "canary-reply", "canary-provider"):
        assert canary.encode() not in database
        assert canary not in caplog.text
