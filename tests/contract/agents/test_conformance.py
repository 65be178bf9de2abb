"""The conformance suite: the kit passes it, and each promise that an agent breaks is noticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from fastapi import FastAPI

from agent_kit import Agent, AgentAuth, AgentLimits, GrantCheck, IdempotencyStore, JwksFile, StepContext, create_app
from agent_kit.authority import CALLER, TOKEN_KEYS_FILE, Authority
from agent_kit.conformance import Report, Target, check_agent
from agent_kit.conformance.samples import sample, variation
from agent_kit.conformance.suite import UnreachableError
from agent_kit.execution import Executions
from agent_kit.idempotency import Claimed
from agent_kit.perform import failed
from engine.domain.base import Frozen
from engine.domain.capability import Capability
from engine.domain.execute import ExecuteRequest, ExecuteSucceeded
from engine.domain.grants import GRANT_KEYS_FILE
from engine.identity.development import ENGINE_APP, DevelopmentIssuer
from tests.contract.agents.harness import WallClock, grants_in, request, served

ECHO = Capability(
    name="probe.echo",
    version="1.0.0",
    title="Echo",
    description="Says it again.",
    delivery="http",
    endpoint="probes",
    side_effect="none",
    input_schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["text", "times"],
        "properties": {"text": {"type": "string", "minLength": 2}, "times": {"type": "integer", "minimum": 1}},
    },
    parameters={"text": "payload", "times": "control"},
    output_schema={"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
)


class Echo(Frozen):
    text: str
    times: int


LIMITS: dict[str, Any] = {"drain_s": 1}


def echo_app(keys: Path, *, streams: bool = False, output: Callable[[str, int], Any] | None = None) -> FastAPI:
    agent = Agent({"probe.echo": ECHO})
    calls = 0

    @agent.capability("probe.echo", streams=streams)
    async def echo(inputs: Echo, context: StepContext) -> Any:
        nonlocal calls
        calls += 1
        context.progress(0.5, "half")
        return {"text": inputs.text * inputs.times} if output is None else output(inputs.text, calls)

    return create_app(
        agent,
        auth=AgentAuth(JwksFile(keys / TOKEN_KEYS_FILE)),
        grants=GrantCheck(JwksFile(keys / GRANT_KEYS_FILE)),
        store=IdempotencyStore(None),
        limits=AgentLimits(**LIMITS),
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    Authority.open(folder)
    return folder


async def checked(app: FastAPI, keys: Path, **more: Any) -> Report:
    async with served(app) as url:
        return await check_agent(Target(url, keys, timeout_s=10.0, **more))


def failures(report: Report) -> set[str]:
    return {one.name for one in report.results if one.status == "fail"}


@pytest.mark.parametrize("streams", [False, True])
async def test_an_agent_of_the_kit_keeps_the_contract(keys: Path, streams: bool) -> None:
    report = await checked(echo_app(keys, streams=streams), keys)
    assert [one for one in report.results if one.status == "fail"] == []
    left_out = {one.name for one in report.results if one.status == "not_applicable"}
    assert left_out == AT_ONCE | (set() if streams else {"call.streamed"})
    assert (report.ok, report.capability) == (True, "probe.echo")
    assert json.loads(json.dumps(report.as_json()))["counts"]["pass"] >= 45
    assert len({one.name for one in report.results}) == len(report.results)


SLOW = ECHO.model_copy(update={"name": "probe.slow", "side_effect": "write"})
AT_ONCE = {"execution.cut_off", "execution.stopped"}
"""Cannot be seen of a capability that answers at once."""


def slow_app(keys: Path, *, idempotent: bool) -> FastAPI:
    """An agent whose calls go on until they are cut off, when the suite wants to cut them off, and only the first time."""
    agent = Agent({"probe.slow": SLOW.model_copy(update={"idempotent": idempotent})})

    @agent.capability("probe.slow")
    async def slow(inputs: Echo, context: StepContext) -> Any:
        if context.request.step_id in ("cut-off", "stopped") and context.request.attempt == 1:
            await asyncio.Event().wait()
        return {"text": inputs.text}

    return create_app(
        agent,
        auth=AgentAuth(JwksFile(keys / TOKEN_KEYS_FILE)),
        grants=GrantCheck(JwksFile(keys / GRANT_KEYS_FILE)),
        store=IdempotencyStore(None),
        limits=AgentLimits(**LIMITS),
    )


@pytest.mark.parametrize("idempotent", [False, True])
async def test_an_agent_of_the_kit_begins_nothing_again_that_may_have_had_its_effect(
    keys: Path, idempotent: bool
) -> None:
    report = await checked(slow_app(keys, idempotent=idempotent), keys, capability="probe.slow")
    assert [one for one in report.results if one.status == "fail"] == []
    assert {one.name for one in report.results if one.status == "not_applicable"} == {"call.streamed"}


FREED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "the key is free again": lambda patch: patch.setattr(
        "agent_kit.execution._is_last_word", lambda _, response: isinstance(response, ExecuteSucceeded)
    ),
    "trying again is offered": lambda patch: patch.setattr(
        "agent_kit.execution._cut_off",
        lambda running, reason: failed("agent.deadline", reason, retryable=True),
    ),
}


@pytest.mark.parametrize("fault", sorted(FREED))
async def test_an_agent_that_begins_it_again_is_noticed(
    keys: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    FREED[fault](monkeypatch)
    report = await checked(slow_app(keys, idempotent=False), keys, capability="probe.slow")
    assert failures(report) == AT_ONCE


async def test_an_agent_that_never_begins_again_what_is_safe_to_repeat_is_noticed(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_kit.execution._is_last_word", lambda *_: True)
    report = await checked(slow_app(keys, idempotent=True), keys, capability="probe.slow")
    assert failures(report) == {"execution.cut_off"}


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = {
    "grants are not held against the call": (
        lambda patch: patch.setattr(GrantCheck, "match", lambda *_: None),
        {f"what.other_{name}" for name in ("tenant", "run", "step", "item", "attempt", "action", "plan", "key")}
        | {"what.altered_inputs"},
    ),
    "anybody may ask for any execution": (
        lambda patch: patch.setattr(Executions, "find", lambda self, grant, wanted: _first_answer(self)),
        {"execution.of_others", "execution.unknown"},
    ),
    "nothing is remembered": (
        lambda patch: patch.setattr(IdempotencyStore, "claim", lambda *_: Claimed("token")),
        {"call.key_reused"},
    ),
    "the type of a grant is not looked at": (
        lambda patch: patch.setattr("agent_kit.grants.GRANT_TYPE", AnyType()),
        {"what.other_type"},
    ),
    "a signature is not looked at": (
        lambda patch: patch.setattr("jwt.decode", _believing),
        {f"{paper}.{fault}" for paper in ("who", "what") for fault in ("unsigned", "confused_algorithm")},
    ),
    "grants may live for ever": (
        lambda patch: patch.setattr("agent_kit.grants.MAX_GRANT_LIFETIME_S", 10**9),
        {"what.unbounded"},
    ),
    "old grants are good": (lambda patch: patch.setattr("agent_kit.grants._LEEWAY_S", 10**6), {"what.expired"}),
    "old tokens are good": (lambda patch: patch.setattr("agent_kit.auth._LEEWAY_S", 10**6), {"who.expired_token"}),
    "large requests are read": (
        lambda patch: patch.setitem(LIMITS, "max_request_bytes", 2**22),
        {"form.too_large"},
    ),
}


class AnyType(str):
    """A type that every other one equals."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True


_DECODE = jwt.decode


def _believing(token: str, *_: Any, options: Any, audience: str, **more: Any) -> Any:
    given: Any = options | {"verify_signature": False, "verify_aud": True, "verify_exp": True}
    return _DECODE(token, audience=audience, leeway=more.get("leeway", 0), options=given)


def _first_answer(executions: Executions) -> bytes:
    row = executions.store._db.execute("SELECT response FROM executions").fetchone()
    return bytes(row[0]) if row is not None and row[0] is not None else b"{}"


@pytest.mark.parametrize("fault", sorted(BROKEN))
async def test_a_broken_promise_is_noticed(keys: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    plant, expected = BROKEN[fault]
    plant(monkeypatch)
    report = await checked(echo_app(keys), keys)
    assert expected <= failures(report)
    assert not report.ok


async def test_an_output_that_breaks_the_manifest_is_noticed_and_so_is_one_that_changes(keys: Path) -> None:
    wrong = await checked(echo_app(keys, output=lambda text, calls: {"words": text}), keys)
    assert "call.succeeds" in failures(wrong)


async def test_an_agent_that_trusts_other_keys_fails_and_one_that_is_not_there_too(keys: Path, tmp_path: Path) -> None:
    Authority.open(tmp_path)
    assert "capabilities.listed" in failures(await checked(echo_app(keys), tmp_path))
    stranger = await checked(FastAPI(), keys)
    why_not = {one.detail for one in stranger.results if one.status == "not_applicable"}
    assert why_not == {"there are no capabilities to call: see capabilities.listed"}
    with pytest.raises(UnreachableError, match="Connection refused"):
        await check_agent(Target("http://127.0.0.1:9", keys, timeout_s=2.0))


async def test_inputs_and_capability_can_be_given(keys: Path) -> None:
    report = await checked(echo_app(keys), keys, capability="probe.echo", inputs={"text": "abc", "times": 2})
    assert report.ok
    unknown = await checked(echo_app(keys), keys, capability="probe.other")
    assert {one.detail for one in unknown.results if one.status == "not_applicable"} == {"no such capability"}
    assert failures(unknown) == {"capabilities.callable"}
    assert not unknown.ok, "an agent of which nothing was called keeps nothing"


def test_samples_fit_their_schema_or_there_are_none() -> None:
    assert sample(ECHO.input_schema) == {"text": "aa", "times": 1}
    assert variation(ECHO.input_schema, {"text": "aa", "times": 1}) == {"text": "aab", "times": 1}
    dated = {"type": "object", "required": ["day"], "properties": {"day": {"type": "string", "format": "date"}}}
    assert sample(dated) == {"day": "2026-01-01"}
    assert variation(dated, {"day": "2026-01-01"}) == {"day": "2026-02-02"}
    hard = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string", "pattern": "^[0-9]{4}$"}}}
    assert sample(hard) is None


async def test_the_kits_authority_and_the_development_stack_share_a_folder(tmp_path: Path) -> None:
    """Whoever comes first makes the keys; the other goes on with them, and agents see no difference."""
    kit_first, stack_first = tmp_path / "kit", tmp_path / "stack"
    Authority.open(kit_first)
    assert CALLER == ENGINE_APP
    before = {name: (kit_first / name).read_text() for name in (TOKEN_KEYS_FILE, GRANT_KEYS_FILE)}
    DevelopmentIssuer.open(kit_first, WallClock(), environment="local")
    await grants_in(kit_first).mint(request("probe.count"))
    for name, text in before.items():
        assert json.loads((kit_first / name).read_text()) == json.loads(text)
    DevelopmentIssuer.open(stack_first, WallClock(), environment="local")
    await grants_in(stack_first).mint(request("probe.count"))
    assert (await checked(echo_app(stack_first), stack_first)).ok


def test_the_private_keys_are_their_owners_alone(tmp_path: Path) -> None:
    Authority.open(tmp_path)
    private = list(tmp_path.rglob("*.pem"))
    assert len(private) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)
    assert all(b'"d"' not in path.read_bytes() for path in tmp_path.rglob("*.json"))
    assert isinstance(Authority.open(tmp_path).grant(request("probe.count")), str)
    assert ExecuteRequest.model_fields["plan_hash"].default == ""
