"""Circuits: may a capability be called now, or has it failed so often that calls stop for a while?

A circuit belongs to a capability in a region and is shared by all tenants whose rules are the platform's. A tenant with rules of
its own has circuits of its own, so that nobody's rules hold for anybody else. Whether a failure counts is decided by its code:
what one caller did wrong never opens a circuit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from engine.domain.capability import Capability
from engine.domain.tenant import TenantConfig

CircuitOutcome = Literal["success", "failure", "neutral"]
CircuitPhase = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class CircuitPass:
    """The answer to one caller. It is given back with the outcome when ``granted``; otherwise ``retry_after_s`` and
    ``open_until_at`` say when to ask again. ``circuit`` names the circuit, ``generation`` is the one the answer belongs to."""

    tenant: TenantConfig
    circuit: str
    lease_id: str
    granted: bool
    generation: int = 0
    retry_after_s: float = 0
    open_until_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CircuitView:
    """One circuit as it was a moment ago. ``failures_in_row`` counts, ``probing`` are calls that try it out."""

    circuit: str
    capability: str
    region: str
    phase: CircuitPhase
    failures_in_row: float
    breaks: int
    probing: int
    open_until_at: datetime | None


class Circuits(Protocol):
    """The circuits of all capabilities. None of these raises: who cannot reach the shared state works with what it knows."""

    async def permit(self, tenant: TenantConfig, capability: Capability, lease_id: str) -> CircuitPass:
        """May this call be made? ``lease_id`` is the call's own: asking again with it is answered alike."""
        ...

    async def report(self, passed: CircuitPass, outcome: CircuitOutcome) -> datetime | None:
        """How a granted call ended. Every granted call is reported, or the place of a probe stays taken until it expires.
        Returns until when the circuit is open, if it was this report that opened it, as far as this process can tell."""
        ...

    async def views(self, tenant: TenantConfig, capabilities: Iterable[Capability]) -> tuple[CircuitView, ...]:
        """The circuits of these capabilities, in their order."""
        ...

    async def unavailable(self, tenant: TenantConfig, capabilities: Iterable[Capability]) -> Mapping[str, str]:
        """Names of the capabilities whose circuit is open, each with what to use instead, or an empty text."""
        ...

    def known_open(self, tenant: TenantConfig, capabilities: Iterable[Capability]) -> Mapping[str, str]:
        """The same from what this process has seen lately, without asking."""
        ...


class NoCircuits:
    """Every circuit is closed. For a process that calls nothing shared; the composition root always gives real ones."""

    async def permit(self, tenant: TenantConfig, capability: Capability, lease_id: str) -> CircuitPass:
        """See ``Circuits``."""
        return CircuitPass(tenant, capability.name, lease_id, granted=True)

    async def report(self, passed: CircuitPass, outcome: CircuitOutcome) -> datetime | None:
        """See ``Circuits``."""
        return None

    async def views(self, tenant: TenantConfig, capabilities: Iterable[Capability]) -> tuple[CircuitView, ...]:
        """See ``Circuits``."""
        return ()

    async def unavailable(self, tenant: TenantConfig, capabilities: Iterable[Capability]) -> Mapping[str, str]:
        """See ``Circuits``."""
        return {}

    def known_open(self, tenant: TenantConfig, capabilities: Iterable[Capability]) -> Mapping[str, str]:
        """See ``Circuits``."""
        return {}
