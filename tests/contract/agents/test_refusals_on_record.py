"""Whatever an agent does that it must not: the step fails under a stable code, that is on the audit record, and nothing is kept.

The whole step runner with the real caller, over real sockets; only the agents are hostile.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent_kit import Agent, StepContext
from agent_kit.testing import serving
from engine.adapters.egress.connector import Lookup, system_lookup
from engine.adapters.http_agents import HttpAgentInvoker
from engine.adapters.http_agents.call import Pauses
from engine.domain.audit import AuditRecord
from engine.domain.base import Frozen
from engine.domain.egress import EgressRules
from engine.domain.execute import MAX_RESPONSE_BYTES, execution_id
from engine.domain.outcomes import Failed
from engine.domain.status import StepStatus
from engine.evidence.egress import AuditedEgress
from engine.identity.development import DevelopmentIssuer
from engine.ports.grants import Grants
from tests.contract.agents.harness import Raw, SpareGrants, WallClock, grants_in, raw_server
from tests.support.world import CAPABILITIES, World, plan_of, step

DOUBLE = next(one for one in CAPABILITIES if one.name == "calc.double")
ID = execution_id("contoso", "run-1/a")


def answer(document: Any, status: str = "200 OK", *lines: str) -> Raw:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", "Connection: close", f"Content-Length: {len(body)}"]

    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*head, *lines, "", ""]).encode() + body)
        await writer.drain()

    return write


def succeeded(output: Any) -> dict[str, Any]:
    return {"status": "succeeded", "output": output}


def bomb() -> Raw:
    packer = zlib.compressobj(9, wbits=31)
    body = b"".join(packer.compress(bytes(2**20)) for _ in range(128)) + packer.flush()
    return answer(body, "200 OK", "Content-Encoding: gzip")


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


def one_after_another(*answers: Raw) -> Raw:
    left = list(answers)

    async def write(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(reader, writer)

    return write


def running(of: str) -> dict[str, Any]:
    return {"status": "running", "execution_id": of}


LINK_LOCAL = "Location: http://169.254.169.254/metadata/identity/oauth2/token"
HOSTILE: dict[str, tuple[Callable[[], Raw], str]] = {
    "a redirect to a link-local address": (lambda: answer({}, "307 Temporary", LINK_LOCAL), "agent.error"),
    "a decompression bomb": (bomb, "agent.contract_violation"),
    "a slow drip": (lambda: drip, "agent.timeout"),
    "an output of another schema": (lambda: answer(succeeded({"n": "2"})), "agent.contract_violation"),
    "an output with more than was agreed": (lambda: answer(succeeded({"n": 2, "m": 1})), "agent.contract_violation"),
    "an oversized output": (lambda: answer(succeeded("x" * MAX_RESPONSE_BYTES)), "agent.contract_violation"),
    "a result that is none": (lambda: answer(b"<html>"), "agent.contract_violation"),
    "another run's execution": (lambda: answer(running("0" * 32), "202 Accepted"), "agent.contract_violation"),
    "an accepted call that leads elsewhere": (
        lambda: one_after_another(
            answer(running(ID), "202 Accepted", LINK_LOCAL), answer({}, "307 Temporary", LINK_LOCAL)
        ),
        "agent.error",
    ),
    "a decision in our name": (
        lambda: answer({"status": "failed", "error": {"code": "policy.denied", "retryable": False}}),
        "agent.error",
    ),
}


@dataclass
class Trial:
    """A world whose steps call one agent."""

    world: World

    async def perform(self, timeout_s: float = 20.0) -> Failed:
        """The step's failure."""
        await self.world.submit(plan_of(step("a", timeout_s=timeout_s)))
        outcome = await self.world.perform("a")
        assert isinstance(outcome, Failed), outcome
        return outcome

    invoker: HttpAgentInvoker

    async def records(self) -> tuple[AuditRecord, ...]:
        """The tenant's chain."""
        return await self.world.deps.audit.read("contoso", after_seq=0, limit=100)

    async def result(self) -> AuditRecord:
        """What is on record of how the call ended."""
        (found,) = [record for record in await self.records() if record.type.value == "dispatch.result"]
        return found

    async def refused(self, code: str, url: str) -> AuditRecord:
        """The one refusal of the egress guard in the run's records, which names the host by its hash alone."""
        (found,) = [record for record in await self.records() if record.type.value == "egress.refused"]
        host = url.partition("://")[2]
        assert found.run_id == "run-1"
        assert found.body == {
            "step": "a",
            "attempt": 1,
            "capability": "calc.double",
            "endpoint": "calc",
            "host_sha256": hashlib.sha256(host.encode()).hexdigest(),
            "code": code,
        }
        assert host.rpartition(":")[0] not in found.model_dump_json()
        return found

    async def holds(self, code: str) -> None:
        """The step has failed under the code, on record, and no output is kept."""
        body = (await self.result()).body
        assert (body["status"], body["code"]) == ("failed", code)
        assert "output_sha256" not in body
        record = await self.world.runs.get_step("contoso", "run-1", "a")
        assert record is not None
        assert record.status is not StepStatus.SUCCEEDED
        assert record.output_ref is None


@asynccontextmanager
async def trying(
    url: str,
    *,
    credential: Callable[[], Awaitable[str]] | None = None,
    grants: Grants | None = None,
    lookup: Lookup = system_lookup,
) -> AsyncIterator[Trial]:
    async def token() -> str:
        return "token"

    world = World()
    invoker = HttpAgentInvoker(
        {"calc": url},
        credential or token,
        grants or SpareGrants(),
        now=world.clock.now,
        pauses=Pauses(poll_s=0.01, max_poll_s=0.02),
        lookup=lookup,
        refusals=AuditedEgress(world.deps.audit, world.clock),
    )
    world.deps = replace(world.deps, invoker=invoker)
    yield Trial(world, invoker)
    await invoker.close()


@pytest.mark.parametrize("hostile", sorted(HOSTILE))
async def test_what_a_hostile_agent_does_is_refused_and_on_record(hostile: str) -> None:
    made, code = HOSTILE[hostile]
    async with raw_server(made()) as url, trying(url) as trial:
        outcome = await trial.perform(timeout_s=1.0 if made() is drip else 20.0)
        assert outcome.code == code
        await trial.holds(code)


@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["127.0.0.1", "169.254.169.254"], ["168.63.129.16"]])
async def test_a_name_that_leads_to_the_metadata_service_is_not_called(addresses: list[str]) -> None:
    hits = 0

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hits
        hits += 1
        await answer(succeeded({"n": 2}))(reader, writer)

    async def rebound(host: str, port: int) -> list[str]:
        return addresses

    async with raw_server(target) as url, trying(url.replace("127.0.0.1", "localhost"), lookup=rebound) as trial:
        assert (await trial.perform()).code == "agent.not_allowed"
        await trial.holds("agent.not_allowed")
        await trial.refused("egress.address_blocked", url.replace("127.0.0.1", "localhost"))
    assert hits == 0


async def test_a_socket_that_the_last_fence_stops_is_a_refusal_and_no_outage() -> None:
    async def told_otherwise(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    class Blind(EgressRules):
        def check_addresses(self, host: str, addresses: Sequence[str]) -> None:
            """Sees nothing wrong, as if a rule had a hole."""

    async with raw_server(answer(succeeded({"n": 2}))) as url:
        port = url.rpartition(":")[2]
        async with trying(f"https://agents.example:{port}", lookup=told_otherwise) as trial:
            trial.invoker._exchange.rules = Blind(frozenset({("agents.example", int(port))}), allow_private=True)
            assert (await trial.perform()).code == "agent.not_allowed"
            await trial.refused("egress.address_blocked", f"https://agents.example:{port}")


async def test_a_redirect_is_a_refusal_on_record_once_and_without_where_it_led() -> None:
    async with raw_server(answer({}, "307 Temporary", LINK_LOCAL)) as url, trying(url) as trial:
        assert (await trial.perform()).code == "agent.error"
        record = await trial.refused("egress.redirect", url)
        assert "169.254" not in record.model_dump_json()
        assert "metadata" not in record.model_dump_json()


async def test_what_was_let_through_is_no_refusal() -> None:
    async with raw_server(answer(succeeded({"n": "wrong"}))) as url, trying(url) as trial:
        await trial.perform()
        assert [r for r in await trial.records() if r.type.value == "egress.refused"] == []


class Number(Frozen):
    n: int


@asynccontextmanager
async def doubling(keys: Path) -> AsyncIterator[tuple[str, list[int]]]:
    """An agent of the kit that doubles, and what it did."""
    agent = Agent({"calc.double": DOUBLE})
    effects: list[int] = []

    @agent.capability("calc.double")
    async def double(inputs: Number, context: StepContext) -> dict[str, int]:
        effects.append(inputs.n)
        return {"n": 2 * inputs.n}

    async with serving(agent, keys) as url:
        yield url, effects


async def test_a_refusal_of_the_agent_is_on_record_under_its_own_code(tmp_path: Path) -> None:
    """No grant of a key that the agent knows, a token for somebody else, a user's token: nothing is executed."""
    ours, others = tmp_path / "ours", tmp_path / "others"
    issuer = DevelopmentIssuer.open(ours, WallClock(), environment="local")
    good = grants_in(ours)
    async with doubling(ours) as (url, effects):

        async def agents_token() -> str:
            return issuer.mint_for_agents()

        async def others_token() -> str:
            return issuer.mint_for_agents(audience="api://others")

        async def users_token() -> str:
            return issuer.mint("contoso", "ana", [], audience="api://livoa-agents")

        tried = (
            (agents_token, grants_in(others), "grant.invalid"),
            (others_token, good, "auth.audience_wrong"),
            (users_token, good, "auth.token_invalid"),
        )
        for credential, grants, code in tried:
            async with trying(url, credential=credential, grants=grants) as trial:
                assert (await trial.perform()).code == code
                await trial.holds(code)
        assert effects == []
