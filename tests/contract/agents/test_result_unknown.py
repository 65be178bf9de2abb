"""A call that was cut off in the middle is not begun again under its key, unless its manifest says that it may be."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_kit import AgentLimits, IdempotencyStore
from engine.domain.execute import ExecuteFailed, ExecuteResponse, ExecuteSucceeded
from engine.domain.grants import request_sha256
from engine.identity.development import DevelopmentIssuer
from tests.contract.agents.harness import Clock, Stand, request, stand
from tests.contract.agents.test_executions import ASYNC, ID, accepted, asked

UNKNOWN = ("agent.result_unknown", False)


def said(answer: ExecuteResponse | dict[str, Any]) -> tuple[str, bool]:
    """Code and whether to try again, of a failure."""
    if isinstance(answer, dict):
        return answer["error"]["code"], answer["error"]["retryable"]
    assert isinstance(answer, ExecuteFailed), answer
    return answer.error.code, answer.error.retryable


async def ended(found: Stand, of: str) -> dict[str, Any]:
    document: dict[str, Any] = {"status": "running"}
    async with asyncio.timeout(60):
        while document["status"] == "running":
            _, document, _ = await asked(found, "GET", f"/executions/{ID}", grant_of={"capability": of})
    return document


async def never_begun_again(found: Stand, of: str, effects: int = 0) -> None:
    """Whoever asks, and however often, is told the same, and nothing happens."""
    found.probes.go_on.set()
    first = None
    for attempt in (1, 2, 3):
        answer = await found.call(of, attempt=attempt)
        assert said(answer) == UNKNOWN
        assert first in (None, answer), "the same words each time"
        first = answer
    assert found.probes.effects == effects


async def test_at_its_deadline(probe_stand: Stand) -> None:
    await accepted(probe_stand, "probe.brief")
    assert said(await ended(probe_stand, "probe.brief")) == UNKNOWN
    await never_begun_again(probe_stand, "probe.brief")


async def test_at_its_deadline_whoever_waits_is_told_that_nobody_knows(probe_stand: Stand) -> None:
    """The manifest's time is over before the caller's."""
    body = request("probe.brief").model_dump_json().encode()
    of = {"capability": "probe.brief"}
    status, document, _ = await asked(probe_stand, "POST", "/execute", grant_of=of, body=body)
    assert (status, said(document)) == (200, UNKNOWN)


async def test_by_an_agent_that_leaves(issuer: DevelopmentIssuer, jwks: Path, tmp_path: Path) -> None:
    path = tmp_path / "executions.db"
    async with stand(issuer, jwks, store=IdempotencyStore(path), limits=AgentLimits(drain_s=0.1)) as found:
        await accepted(found)
    async with stand(issuer, jwks, store=IdempotencyStore(path)) as found:
        assert said(await ended(found, "probe.hold")) == UNKNOWN
        await never_begun_again(found, "probe.hold")


@pytest.mark.parametrize("restarted", [False, True])
async def test_by_the_death_of_its_process(
    issuer: DevelopmentIssuer, jwks: Path, tmp_path: Path, restarted: bool
) -> None:
    """What the dead one left is the claim, with what to say; another process may share the file, or the next one open it."""
    clock, path = Clock(), tmp_path / "executions.db"
    dead = IdempotencyStore(path, now=clock.now)
    neighbour = None if restarted else IdempotencyStore(path, now=clock.now)
    async with stand(issuer, jwks, store=dead) as found:
        await accepted(found)
        claim = dead._db.execute("SELECT * FROM executions").fetchall()
        found.probes.go_on.set()
        await ended(found, "probe.hold")
        assert found.probes.effects == 1
        dead._db.execute("DELETE FROM executions")
        dead._db.execute(f"INSERT INTO executions VALUES ({', '.join('?' * len(claim[0]))})", claim[0])
    if neighbour is not None:
        clock.at += timedelta(seconds=16)
    async with stand(issuer, jwks, store=neighbour or IdempotencyStore(path, now=clock.now)) as found:
        assert said(await ended(found, "probe.hold")) == UNKNOWN
        await never_begun_again(found, "probe.hold")


async def test_by_an_error_that_nobody_expected(probe_stand: Stand) -> None:
    probe_stand.probes.fail_times = 1
    assert said(await probe_stand.call("probe.crash")) == UNKNOWN
    await never_begun_again(probe_stand, "probe.crash")


async def test_an_effect_with_an_answer_nobody_can_use_is_not_had_again(probe_stand: Stand) -> None:
    probe_stand.probes.output = {"count": "many"}
    for _ in range(2):
        assert said(await probe_stand.call("probe.output")) == ("agent.contract_violation", False)
    assert probe_stand.probes.effects == 1


async def test_a_capability_that_says_what_has_become_of_it_is_believed(probe_stand: Stand) -> None:
    assert said(await probe_stand.call("probe.refuse")) == ("probe.not_today", True)
    probe_stand.probes.says = "agent.result_unknown"
    assert said(await probe_stand.call("probe.refuse")) == UNKNOWN
    probe_stand.probes.says = "probe.not_today"
    assert said(await probe_stand.call("probe.refuse")) == UNKNOWN, "it was the last word"


async def test_who_stood_still_for_longer_than_its_lease_and_goes_on_is_not_given_up(
    issuer: DevelopmentIssuer, jwks: Path
) -> None:
    ahead = timedelta()
    store = IdempotencyStore(None, now=lambda: datetime.now(UTC) + ahead)
    async with stand(issuer, jwks, store=store) as found:
        await accepted(found)
        ahead = timedelta(seconds=60)
        _, document, _ = await asked(found, "GET", f"/executions/{ID}")
        assert document["status"] == "running"
        ahead = timedelta(seconds=120)
        body = request("probe.hold").model_dump_json().encode()
        status, problem, _ = await asked(found, "POST", "/execute", body=body, **ASYNC)
        assert (status, problem["code"]) == (409, "agent.in_flight")
        found.probes.go_on.set()
        assert isinstance(await found.call("probe.hold"), ExecuteSucceeded)
        assert found.probes.effects == 1


async def test_who_was_given_up_and_comes_back_does_not_change_what_was_told(
    issuer: DevelopmentIssuer, jwks: Path, tmp_path: Path
) -> None:
    clock, path = Clock(), tmp_path / "executions.db"
    frozen, other = IdempotencyStore(path, now=clock.now), IdempotencyStore(path, now=clock.now)
    async with stand(issuer, jwks, store=frozen) as found:
        await accepted(found)
        clock.at += timedelta(seconds=16)
        assert other.look("contoso", "r/s", request_sha256("probe.hold", {"note": "a"})) is not None
        found.probes.go_on.set()
        await found.probes.had_effect.wait()
        assert said(await ended(found, "probe.hold")) == UNKNOWN
        await never_begun_again(found, "probe.hold", effects=1)
