"""The agent every capability leads to: a correct one by the contract, in a world where answers are slow, lost or malformed.

Correct means: one effect per idempotency key, the stored success for a repeated key, 409 while the key is in flight. It outlives
the host, so a call whose host died may have had its effect all the same.
"""

from __future__ import annotations

import random
from typing import Any

from engine.domain.capability import Capability
from engine.domain.execute import (
    ExecuteError,
    ExecuteFailed,
    ExecuteRequest,
    ExecuteResponse,
    ExecuteSucceeded,
    Usage,
)
from engine.domain.ids import undo_id
from engine.plan import CheckedPlan
from engine.ports.invoker import ProgressSink
from tests.chaos.adversary import Fate
from tests.chaos.observer import DELIVERY, CallFact, Key
from tests.chaos.plans import CANARY, CATALOG, FRAIL, REVOCABLE
from tests.chaos.stores import Mortal

FALLBACK = " by its fallback"
"""What the effect of a fallback is called after the step's id."""


def key_of(request: ExecuteRequest) -> Key:
    """Whose effect it is: a step's, that of its undoing, or that of its fallback, which has a key of its own."""
    suffix = request.idempotency_key.rpartition("/")[2]
    if suffix == "undo":
        return undo_id(request.step_id), request.item
    return request.step_id + (FALLBACK if suffix == "fallback" else ""), request.item


def _failed(code: str, *, retryable: bool, retry_after_s: float | None = None) -> ExecuteFailed:
    error = ExecuteError(code=code, message="the agent says no", retryable=retryable, retry_after_s=retry_after_s)
    return ExecuteFailed(error=error)


class Agent:
    """What stands behind the invoker port; ``through`` binds it to the host that calls."""

    def __init__(self, plan: CheckedPlan) -> None:
        ids = [step.id for step in plan.steps]
        self._needs = {ids[index]: tuple(ids[need] for need in needs) for index, needs in enumerate(plan.needs)}
        self._stored: dict[str, ExecuteSucceeded] = {}
        self._in_flight: set[str] = set()
        self._asked: dict[str, int] = {}

    def through(self, host: Mortal) -> Invoker:
        """The invoker of one host."""
        return Invoker(self, host)

    def note_call(self, request: ExecuteRequest, host: Mortal) -> None:
        """Write down what was true when the call arrived."""
        seen, delivery = host.observer, DELIVERY.get()
        key = key_of(request)
        is_undo = request.idempotency_key.endswith("/undo")
        needs = (
            () if is_undo else self._needs.get(request.step_id, ())
        )  # a repair's steps have what stands in their plan
        intent = f"{request.idempotency_key}#{request.attempt}/dispatch.intended"
        serial = seen.next()
        seen.calls.append(
            CallFact(
                serial=serial,
                key=key,
                attempt=request.attempt,
                idempotency_key=request.idempotency_key,
                delivery=delivery,
                had_intent=intent in seen.entries,
                final_before=seen.final_before(key, delivery.serial),
                needs={need: seen.final_before((need, None), serial) for need in needs},
                cancelled_before=not is_undo and seen.cancelled_at is not None and seen.cancelled_at < delivery.serial,
                held=any(start < delivery.serial and (end is None or serial < end) for start, end in seen.holds),
                failed_before=seen.retried.get((key, request.attempt), serial) < delivery.serial,
                refused=delivery.serial in seen.refused,
                revoked=request.capability == REVOCABLE
                and seen.revoked_at is not None
                and seen.revoked_at < delivery.serial,
            )
        )

    async def handle(self, request: ExecuteRequest, host: Mortal) -> ExecuteResponse:
        """One call, from its arrival to its answer."""
        key = request.idempotency_key
        nth = self._asked[key] = self._asked.get(key, 0) + 1
        fate, details = host.adversary.fate(key, nth, is_frail=request.capability == FRAIL)
        if key in self._stored:
            await host.clock.sleep_s(0.01)
            return self._stored[key]
        if key in self._in_flight:
            return _failed("agent.conflict", retryable=True)
        self._in_flight.add(key)
        try:
            return await self._work(request, fate, details, host)
        finally:
            self._in_flight.discard(key)

    async def _work(self, request: ExecuteRequest, fate: Fate, details: random.Random, host: Mortal) -> ExecuteResponse:
        seconds = details.choice((0, 0.2, details.uniform(0, 8)))
        # As the real invoker bounds a call: a clock that was set back since the deadline was made gives nobody hours.
        timeout_s = CATALOG.capabilities[request.capability].timeout_s
        left_s = min((request.deadline_at - host.clock.now()).total_seconds(), timeout_s)
        if fate in ("unreachable", "busy", "refused"):
            await host.clock.sleep_s(min(seconds, left_s))
            return _refusal(fate, details)
        if fate == "slow" or seconds >= left_s:
            await host.clock.sleep_s(left_s)
            return _failed("agent.timeout", retryable=True)
        try:
            await host.clock.sleep_s(seconds)
            await host.point("agent:before-effect")
        finally:
            # A call whose caller died half-way reaches its end in half of the cases.
            if not host.is_dead or details.random() < 0.5:
                answer = self._effect(request, fate, details, host)
        await host.point("agent:after-effect")
        if fate == "lost":
            host.observer.faults["agent answer lost"] += 1
            return _failed("agent.unreachable", retryable=True)
        return answer

    def _effect(self, request: ExecuteRequest, fate: Fate, details: random.Random, host: Mortal) -> ExecuteSucceeded:
        host.observer.effects[key_of(request)] += 1
        host.observer.effect_order.append(key_of(request))
        n = request.inputs["n"] + details.randrange(3)
        rows = [{"n": index, "note": f"row {CANARY}"} for index in range(details.randrange(6))]
        output: dict[str, Any] = {"n": n, "note": f"{request.inputs['note'][:200]} {CANARY}", "rows": rows}
        if fate == "malformed":
            output["n"] = f"many {CANARY}"
            host.observer.malformed.add(key_of(request))
        cost = details.choice((None, 0, 7))
        answer = ExecuteSucceeded(output=output, usage=Usage(cost_micro_usd=cost))
        self._stored[request.idempotency_key] = answer
        return answer


def _refusal(fate: Fate, details: random.Random) -> ExecuteFailed:
    if fate == "unreachable":
        return _failed("agent.unreachable", retryable=True)
    if fate == "busy":
        return _failed("agent.busy", retryable=True, retry_after_s=details.choice((0, 3, 30)))
    return _failed("agent.refused", retryable=False)


class Invoker:
    """``CapabilityInvoker`` of one host."""

    def __init__(self, agent: Agent, host: Mortal) -> None:
        self._agent, self._host = agent, host

    async def invoke(
        self,
        capability: Capability,
        request: ExecuteRequest,
        *,
        traceparent: str | None = None,
        progress: ProgressSink | None = None,
    ) -> ExecuteResponse:
        """See the port."""
        await self._host.point("invoker:before")
        self._agent.note_call(request, self._host)
        response = await self._agent.handle(request, self._host)
        await self._host.point("invoker:after")
        return response
