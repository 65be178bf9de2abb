"""What an agent promises about executions: once is once, long work is found again, and nobody else's is told of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent_kit.conformance.expectations import (
    NotApplicableError,
    Subject,
    expect,
    expect_problem,
    expect_success,
)
from agent_kit.conformance.samples import variation
from engine.domain.execute import NDJSON, execution_id

_ASYNC = {"Prefer": "respond-async, wait=0"}


async def _succeeds(subject: Subject) -> None:
    reply = await subject.caller.result(subject.caller.good(subject.request()))
    expect_success(reply, subject.capability)


async def _repeated(subject: Subject) -> None:
    request = subject.request()
    first = expect_success(await subject.caller.result(subject.caller.good(request)), subject.capability)
    again = request.model_copy(update={"attempt": 2})
    second = expect_success(await subject.caller.result(subject.caller.good(again)), subject.capability)
    expect(first == second, "a repeated call must get the stored answer, and got another one")


async def _key_reused(subject: Subject) -> None:
    other = variation(subject.capability.input_schema, subject.inputs)
    if other is None:
        raise NotApplicableError("no second inputs could be made from its schema")
    request = subject.request()
    expect_success(await subject.caller.result(subject.caller.good(request)), subject.capability)
    changed = request.model_copy(update={"inputs": other})
    expect_problem(await subject.caller.send(subject.caller.good(changed)), frozenset({422}))


async def _at_once(subject: Subject) -> None:
    request = subject.request()
    sending = subject.caller.good(request)
    replies = await asyncio.gather(*(subject.caller.result(sending) for _ in range(5)))
    outputs = [expect_success(reply, subject.capability) for reply in replies if reply.status == 200]
    for reply in replies:
        if reply.status != 200:
            expect_problem(reply, frozenset({409}))
    expect(bool(outputs), "of five equal calls at once none got a result")
    expect(all(output == outputs[0] for output in outputs), "equal calls at once got different results")


async def _asynchronous(subject: Subject) -> None:
    request = subject.request()
    reply = await subject.caller.send(subject.caller.good(request).but(headers=_ASYNC))
    expect(reply.status in (200, 202), f"expected 200 or 202 for who prefers to be told to come back, got {reply}")
    if reply.status == 202:
        wanted = execution_id(request.tenant_id, request.idempotency_key)
        named = reply.document.get("execution_id") if isinstance(reply.document, dict) else None
        expect(named == wanted, "the id of an execution follows from tenant and idempotency key, and this is another")
    found = await subject.caller.result(subject.caller.about(request))
    expect_success(found, subject.capability)


async def _streamed(subject: Subject) -> None:
    accept = {"Accept": f"{NDJSON}, application/json"}
    reply = await subject.caller.send(subject.caller.good(subject.request()).but(headers=accept))
    if reply.media_type != NDJSON:
        expect(reply.status == 200, f"who accepts a stream too must still get an answer, got {reply}")
        raise NotApplicableError("this capability answers without streaming")
    expect_success(reply, subject.capability)


async def _found_again(subject: Subject) -> None:
    request = subject.request()
    output = expect_success(await subject.caller.result(subject.caller.good(request)), subject.capability)
    about = await subject.caller.send(subject.caller.about(request))
    expect(expect_success(about, subject.capability) == output, "asked for again, the execution has another result")


async def _unknown(subject: Subject) -> None:
    for method in ("GET", "DELETE"):
        reply = await subject.caller.send(subject.caller.about(subject.request(), method))
        expect_problem(reply, frozenset({404}))


async def _of_others(subject: Subject) -> None:
    request = subject.request()
    expect_success(await subject.caller.result(subject.caller.good(request)), subject.capability)
    own, other = subject.caller.about(request), subject.caller.about(subject.request())
    elsewhere = request.model_copy(update={"tenant_id": "fabrikam-conformance"})
    for method in ("GET", "DELETE"):
        foreign = (
            own.but(grant=other.grant),
            own.but(grant=subject.caller.grant(elsewhere)),
            own.but(grant=subject.caller.authority.strange().grant(request)),
            own.but(grant=None),
        )
        for sending in foreign:
            expect_problem(await subject.caller.send(sending.but(method=method)), frozenset({403}))
        expect_problem(await subject.caller.send(own.but(token=None, method=method)), frozenset({401}))


async def _cancelled(subject: Subject) -> None:
    request = subject.request()
    expect_success(await subject.caller.result(subject.caller.good(request)), subject.capability)
    reply = await subject.caller.send(subject.caller.about(request, "DELETE"))
    expect_success(reply, subject.capability)  # what has succeeded stays so


EXECUTIONS: tuple[tuple[str, Callable[[Subject], Awaitable[None]]], ...] = (
    ("call.succeeds", _succeeds),
    ("call.repeated", _repeated),
    ("call.key_reused", _key_reused),
    ("call.at_once", _at_once),
    ("call.asynchronous", _asynchronous),
    ("call.streamed", _streamed),
    ("execution.found_again", _found_again),
    ("execution.unknown", _unknown),
    ("execution.of_others", _of_others),
    ("execution.cancelled_late", _cancelled),
)
