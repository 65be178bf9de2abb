"""How much of the platform a tenant takes: admission of requests at the door. How many runs are under way at once is leased by
the run itself, from the durable entity of its tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from engine.domain.tenant import Quota

Door = Literal["submissions", "links"]
"""What is let in: each has a rate and a burst of its own."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Whether a request may come in; when not, ``retry_after_s`` says after how many seconds to try again."""

    granted: bool
    retry_after_s: int = 0


@dataclass(frozen=True, slots=True)
class PermitBlock:
    """``permits`` for a process to hand out by itself; when there are none, there is one after ``retry_after_ms``."""

    permits: int
    retry_after_ms: int = 0


class PermitLedger(Protocol):
    """The one count of a tenant's permits that all processes share."""

    async def lease(self, tenant_id: str, quota: Quota, permits: int, door: Door = "submissions") -> PermitBlock:
        """Take up to ``permits`` (at least 1) out of the tenant's bucket for this door. Raises what a store raises."""
        ...


class Admission(Protocol):
    """The door."""

    async def admit(self, tenant_id: str, quota: Quota, door: Door = "submissions") -> Admitted:
        """May one more request of this tenant come in now? Does not raise: without the shared count a few more may, then none."""
        ...


class NoAdmission:
    """A door without a limit. For tests of something else; the composition root always gives a real one."""

    async def admit(self, tenant_id: str, quota: Quota, door: Door = "submissions") -> Admitted:
        """See ``Admission``."""
        return Admitted(granted=True)
