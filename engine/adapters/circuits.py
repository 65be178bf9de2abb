"""Circuits over the durable entities, with a copy per process: a call is let through without asking anybody.

The copy is read again when it is older than ``TTL_MS`` and moved on at once by what this process sees itself, so a process that
meets five failures stops by itself and does not wait for the entity to say so. Only failures, probes and samples of successes
travel to the entity. Whoever wants to probe needs a lease that all processes agree on: it asks by a signal and reads the
answer out of the state, because a client cannot call an entity.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from engine.domain import tenant as tenants
from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id
from engine.domain.names import CIRCUIT_BREAKER
from engine.domain.telemetry_names import METRIC_BREAKER_OPENED, TOOL_NAME
from engine.domain.tenant import TenantConfig
from engine.limits.breaker import Breaker, BreakerOp, BreakerResult, BreakerRules, Permit, Report, apply_breaker
from engine.ports.breakers import CircuitOutcome, CircuitPass, CircuitView
from engine.ports.clock import Clock
from engine.ports.entities import EntityDoor
from engine.ports.telemetry import Telemetry

TTL_MS = 1_500
PLANNING_TTL_MS = 10_000
"""A plan is made for minutes; it need not know of the last seconds."""
SETTLE_MS = 1_000
"""How long what this process has just seen outweighs an entity that may not have heard of it yet."""
SAMPLE = 16
"""One in so many successes of a circuit without failures is reported."""
PROBE_WAIT_S = 1.0
PROBE_LOOK_S = 0.025
MAX_CIRCUITS = 4_096
_READS_AT_ONCE = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_USUAL_RULES = tenants.BreakerRules()
_LOG = logging.getLogger("livoa.circuits")


@dataclass(slots=True)
class _Copy:
    """What this process knows of one circuit: the state, when it was read, when this process changed it itself."""

    capability: str
    state: Breaker = field(default_factory=Breaker)
    read_at_ms: int | None = None
    touched_at_ms: int = 0


class EntityCircuits:
    """Implements ``Circuits``. One per process."""

    def __init__(
        self,
        entities: EntityDoor,
        clock: Clock,
        telemetry: Telemetry,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._entities, self._clock, self._telemetry, self._sleep = entities, clock, telemetry, sleep
        self._copies: dict[str, _Copy] = {}

    async def permit(self, tenant: TenantConfig, capability: Capability, lease_id: str) -> CircuitPass:
        """See ``Circuits``."""
        key, rules = circuit_key(tenant, capability), rules_of(tenant)
        copy = self._copy(key, capability)
        await self._refresh(key, copy, TTL_MS)
        now_ms = self._now_ms()
        if copy.state.phase == "open" and 0 < copy.state.until_ms - now_ms <= rules.max_break_ms:
            return self._refused(tenant, key, lease_id, copy.state, copy.state.until_ms - now_ms)
        if copy.state.phase == "closed":
            return CircuitPass(tenant, key, lease_id, granted=True, generation=copy.state.generation)
        return await self._probe(tenant, key, copy, lease_id, rules)

    async def _probe(
        self, tenant: TenantConfig, key: str, copy: _Copy, lease_id: str, rules: BreakerRules
    ) -> CircuitPass:
        """Ask for one of the few places of those who try a circuit out."""
        try:
            await self._entities.signal(CIRCUIT_BREAKER, key, "permit", _operation(tenant, {"lease_id": lease_id}))
            for _ in range(int(PROBE_WAIT_S / PROBE_LOOK_S)):
                await self._sleep(PROBE_LOOK_S)
                state = await self._read(key)
                if state is None or (state.phase == "open" and state.until_ms <= self._now_ms()):
                    continue  # not heard yet
                copy.state = state
                if state.phase == "closed" or any(known == lease_id for known, _ in state.probes):
                    return CircuitPass(tenant, key, lease_id, granted=True, generation=state.generation)
                if state.phase == "open" or len(state.probes) >= rules.probes:
                    break
        except LivoaError:
            _LOG.warning("circuit %s: the shared state cannot be reached, trying by what is known here", key)
            result = self._apply(key, copy, Permit(lease_id), rules)
            if result.granted:
                return CircuitPass(tenant, key, lease_id, granted=True, generation=result.generation)
        return self._refused(tenant, key, lease_id, copy.state, rules.first_break_ms)

    async def report(self, passed: CircuitPass, outcome: CircuitOutcome) -> datetime | None:
        """See ``Circuits``."""
        key, rules = passed.circuit, rules_of(passed.tenant)
        copy = self._copies.get(key)
        if copy is None or not passed.granted:
            return None
        before = copy.state
        result = self._apply(key, copy, Report(passed.lease_id, passed.generation, outcome), rules)
        if _is_worth_telling(before, outcome, passed.lease_id):
            told: JsonObject = {"lease_id": passed.lease_id, "generation": passed.generation, "outcome": outcome}
            try:
                await self._entities.signal(CIRCUIT_BREAKER, key, "report", _operation(passed.tenant, told))
            except LivoaError:
                _LOG.warning("circuit %s: an outcome could not be reported", key)
        if not result.opened:
            return None
        self._telemetry.count(METRIC_BREAKER_OPENED, attributes={TOOL_NAME: copy.capability})
        _LOG.warning("circuit %s is open for %.1f s", key, result.retry_after_ms / 1_000)
        return _instant(copy.state.until_ms)

    async def views(self, tenant: TenantConfig, capabilities: Iterable[Capability]) -> tuple[CircuitView, ...]:
        """See ``Circuits``."""
        found = tuple(capabilities)
        await self._refresh_all(tenant, found, TTL_MS)
        return tuple(self._view(tenant, capability) for capability in found)

    async def unavailable(self, tenant: TenantConfig, capabilities: Iterable[Capability]) -> Mapping[str, str]:
        """See ``Circuits``."""
        found = tuple(capabilities)
        await self._refresh_all(tenant, found, PLANNING_TTL_MS)
        return self.known_open(tenant, found)

    def known_open(self, tenant: TenantConfig, capabilities: Iterable[Capability]) -> Mapping[str, str]:
        """See ``Circuits``. What to do without a capability is not known here."""
        now_ms = self._now_ms()
        is_open: dict[str, str] = {}
        for capability in capabilities:
            copy = self._copies.get(circuit_key(tenant, capability))
            if copy is not None and copy.state.phase == "open" and copy.state.until_ms > now_ms:
                is_open[capability.name] = ""
        return is_open

    def _view(self, tenant: TenantConfig, capability: Capability) -> CircuitView:
        key, now_ms = circuit_key(tenant, capability), self._now_ms()
        state = self._copy(key, capability).state
        is_open = state.phase == "open" and state.until_ms > now_ms
        return CircuitView(
            circuit=key,
            capability=capability.name,
            region=capability.region,
            phase="half_open" if state.phase == "open" and not is_open else state.phase,
            failures_in_row=state.row / 2,
            breaks=state.breaks,
            probing=sum(expires_ms > now_ms for _, expires_ms in state.probes),
            open_until_at=_instant(state.until_ms) if is_open else None,
        )

    async def _refresh_all(self, tenant: TenantConfig, capabilities: tuple[Capability, ...], ttl_ms: int) -> None:
        places = asyncio.Semaphore(_READS_AT_ONCE)

        async def one(capability: Capability) -> None:
            key = circuit_key(tenant, capability)
            async with places:
                await self._refresh(key, self._copy(key, capability), ttl_ms)

        await asyncio.gather(*(one(capability) for capability in capabilities))

    async def _refresh(self, key: str, copy: _Copy, ttl_ms: int) -> None:
        now_ms = self._now_ms()
        if copy.read_at_ms is not None and 0 <= now_ms - copy.read_at_ms < ttl_ms:
            return
        copy.read_at_ms = now_ms  # before waiting: others go on with what is known meanwhile
        try:
            shared = await self._read(key) or Breaker()
        except LivoaError:
            _LOG.info("circuit %s cannot be read, going on with what is known here", key)
            return
        if shared.generation > copy.state.generation or self._now_ms() - copy.touched_at_ms > SETTLE_MS:
            copy.state = shared

    async def _read(self, key: str) -> Breaker | None:
        state = await self._entities.read(CIRCUIT_BREAKER, key)
        return None if state is None else Breaker.from_json(state)

    def _apply(self, key: str, copy: _Copy, op: BreakerOp, rules: BreakerRules) -> BreakerResult:
        now_ms = self._now_ms()
        copy.state, result = apply_breaker(copy.state, op, now_ms, name=key, rules=rules)
        if not (isinstance(op, Report) and op.outcome == "neutral"):
            copy.touched_at_ms = now_ms
        return result

    def _refused(self, tenant: TenantConfig, key: str, lease_id: str, state: Breaker, wait_ms: int) -> CircuitPass:
        return CircuitPass(
            tenant,
            key,
            lease_id,
            granted=False,
            generation=state.generation,
            retry_after_s=wait_ms / 1_000,
            open_until_at=_instant(self._now_ms() + wait_ms),
        )

    def _copy(self, key: str, capability: Capability) -> _Copy:
        if key not in self._copies and len(self._copies) >= MAX_CIRCUITS:
            self._copies.clear()
        return self._copies.setdefault(key, _Copy(capability.name))

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1_000)


def circuit_key(tenant: TenantConfig, capability: Capability) -> str:
    """The circuit of a capability: shared, or the tenant's own when its rules are. Always a wire id."""
    key = f"{capability.name}--{capability.region}"
    if tenant.breaker != _USUAL_RULES:
        key += f"--{tenant.tenant_id}"
    if is_wire_id(key):
        return key
    return f"{_UNSAFE.sub('_', key)[:67]}-{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def rules_of(tenant: TenantConfig) -> BreakerRules:
    """The rules of the tenant's circuits as the reducer wants them."""
    rules = tenant.breaker
    return BreakerRules(
        window_s=rules.window_s,
        min_calls=rules.min_calls,
        failure_percent=rules.failure_percent,
        consecutive_failures=rules.consecutive_failures,
        first_break_ms=int(rules.first_break_s * 1_000),
        max_break_ms=int(max(rules.max_break_s, rules.first_break_s) * 1_000),
        probes=rules.probes,
        probe_ttl_ms=int(rules.probe_ttl_s * 1_000),
        successes_to_close=rules.successes_to_close,
    )


def _operation(tenant: TenantConfig, value: JsonObject) -> JsonObject:
    """The input of an operation, with the rules where they are the tenant's own."""
    return value if tenant.breaker == _USUAL_RULES else {**value, "rules": asdict(rules_of(tenant))}


def _is_worth_telling(before: Breaker, outcome: CircuitOutcome, lease_id: str) -> bool:
    if outcome == "failure" or before.phase != "closed":
        return True
    if outcome == "neutral":
        return False
    # A success ends a row of failures, so everybody has to hear of it; without one it only adds to the count of calls.
    if before.row or any(second.failures for second in before.window):
        return True
    return int.from_bytes(hashlib.sha256(lease_id.encode()).digest()[:4], "big") % SAMPLE == 0


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1_000, UTC)
