"""All checks, in order: is it well, what can it do, whom does it refuse, and what does it promise about executions."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import ValidationError

from agent_kit.authority import Authority
from agent_kit.conformance.client import BodyTooLargeError, Caller, Reply
from agent_kit.conformance.cut_off import CUT_OFF
from agent_kit.conformance.executions import EXECUTIONS
from agent_kit.conformance.expectations import FailedError, NotApplicableError, Subject, expect, expect_problem
from agent_kit.conformance.refusals import REFUSALS, Refusal
from agent_kit.conformance.report import Report, Result
from agent_kit.conformance.samples import sample
from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.egress import EgressRefusedError
from engine.domain.execute import CONTRACT_VERSION, EXECUTE_AUDIENCE, ExecuteRequest

Check = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Target:
    """What to check. ``keys`` is the folder of the authority that the agent trusts. Without ``capability`` one is chosen that has
    no effects; without ``inputs`` some are made from its schema. ``timeout_s`` bounds every single exchange.
    ``tenant_id`` is the tenant in whose name it is called: one whose data the agent has."""

    url: str
    keys: Path
    capability: str | None = None
    inputs: JsonObject | None = None
    audience: str = EXECUTE_AUDIENCE
    timeout_s: float = 30.0
    tenant_id: str = "conformance"


class UnreachableError(Exception):
    """Nothing answers HTTP at the address, so there is nothing to check."""


async def check_agent(target: Target) -> Report:
    """Check everything. Does not raise for anything that the agent does; ``EgressRefusedError`` for an address that is none and
    ``UnreachableError`` for one where nobody answers."""
    caller = Caller(target.url, Authority.open(target.keys), target.audience, target.timeout_s, target.tenant_id)
    await _reach(caller)
    report = Report(target.url, target.capability)
    found: list[Capability] = []
    await _run(report, "health.live", lambda: _health(caller, "live"))
    await _run(report, "health.ready", lambda: _health(caller, "ready"))
    await _run(report, "capabilities.private", lambda: _private(caller))
    await _run(report, "capabilities.listed", lambda: _listed(caller, found))
    subject = _subject(caller, target, found)
    report.capability = subject.capability.name if isinstance(subject, Subject) else target.capability
    await _run(report, "capabilities.callable", lambda: _callable(subject))
    for refusal in REFUSALS:
        await _run(report, refusal.name, _when(subject, refusal, _refused))
    for name, check in EXECUTIONS + CUT_OFF:
        await _run(report, name, _when(subject, check, lambda given, one: one(given)))
    return report


async def _reach(caller: Caller) -> None:
    try:
        await _get(caller, "/health/live", papers=False)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UnreachableError(f"nothing answers at {caller.url}: {_why(error)}") from error
    except BodyTooLargeError:
        return  # somebody does answer; what is wrong with it is for the checks to say


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    number = error.errno if isinstance(error, OSError) else None  # a name that is not known has one of another table
    return os.strerror(number) if number is not None and number > 0 else type(error).__name__


async def _run(report: Report, name: str, check: Check) -> None:
    try:
        await check()
    except NotApplicableError as reason:
        report.results.append(Result(name, "not_applicable", str(reason)))
    except FailedError as reason:
        report.results.append(Result(name, "fail", str(reason)))
    except (aiohttp.ClientError, OSError, TimeoutError, BodyTooLargeError, EgressRefusedError) as error:
        report.results.append(Result(name, "fail", f"no usable answer: {type(error).__name__}"))
    else:
        report.results.append(Result(name, "pass"))


def _when(subject: Subject | str, given: Any, check: Callable[[Subject, Any], Awaitable[None]]) -> Check:
    async def run() -> None:
        if isinstance(subject, str):
            raise NotApplicableError(subject)
        await check(subject, given)

    return run


def _subject(caller: Caller, target: Target, found: list[Capability]) -> Subject | str:
    """What to call, or why nothing is called."""
    harmless = [one for one in found if one.side_effect in ("none", "read")]
    candidates = [one for one in found if one.name == target.capability] if target.capability else harmless
    if not found:
        return "there are no capabilities to call: see capabilities.listed"
    if not candidates:
        return "no such capability" if target.capability else "no capability without effects; name one to call"
    for capability in candidates:
        inputs = target.inputs if target.inputs is not None else sample(capability.input_schema)
        if inputs is not None:
            return Subject(caller, capability, inputs)
    return "no inputs could be made from its schema; give some"


async def _get(caller: Caller, path: str, *, papers: bool) -> Reply:
    nothing = caller.good(caller.request("conformance.none", {}))
    sending = nothing.but(method="GET", path=path, body=b"", grant=None)
    return await caller.send(sending if papers else sending.but(token=None))


async def _health(caller: Caller, kind: str) -> None:
    reply = await _get(caller, f"/health/{kind}", papers=False)
    expect(reply.status == 200, f"expected 200 for anybody, got {reply}")


async def _private(caller: Caller) -> None:
    reply = await _get(caller, "/capabilities", papers=False)
    expect(reply.status == 401, f"expected 401 without a token, got {reply}")


async def _listed(caller: Caller, found: list[Capability]) -> None:
    reply = await _get(caller, "/capabilities", papers=True)
    expect(reply.status == 200 and isinstance(reply.document, dict), f"expected a list, got {reply}")
    version = str(reply.document.get("contract", ""))
    wanted = CONTRACT_VERSION.partition(".")[0]
    expect(version.partition(".")[0] == wanted, f"expected contract {wanted}.x, got {version!r}")
    pages = reply.document.get("capabilities")
    expect(isinstance(pages, list) and bool(pages), "expected at least one capability")
    for page in pages:
        try:
            found.append(Capability.model_validate(page))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = "/".join(str(part) for part in first["loc"])
            raise FailedError(f"a manifest breaks its form at /{place}: {first['msg']}") from None


async def _callable(subject: Subject | str) -> None:
    """Where nothing could be called, nothing is known: that is no agent that keeps the contract."""
    if isinstance(subject, str):
        raise FailedError(subject)


async def _refused(subject: Subject, refusal: Refusal) -> None:
    request: ExecuteRequest = subject.request()
    spoilt = refusal.make(subject.caller, subject.caller.good(request))
    reply = await subject.caller.send(spoilt)
    expect_problem(reply, refusal.statuses)
    # Nothing may have begun: nothing is known of the call as it was meant, nor as it was sent.
    for meant in (request, spoilt.request):
        about = await subject.caller.send(subject.caller.about(meant))
        expect(about.status == 404, f"refused, and yet something is known of an execution: {about}")
