"""Links to single objects of single runs, good for minutes, for who cannot or should not hold a token of the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.run import PayloadRef


@dataclass(frozen=True, slots=True)
class MadeLink:
    """``token`` is the secret part of the link, ``link_id`` names it on record, ``commitment`` what it is for."""

    token: str = field(repr=False)
    link_id: str
    commitment: str


@dataclass(frozen=True, slots=True)
class Linked:
    """What a link leads to."""

    data: bytes = field(repr=False)
    is_json: bool
    link_id: str
    commitment: str


class PayloadLinks(Protocol):
    """Makes links and follows them. A link is bound to its tenant, run, object and time, and dies with the run's key."""

    async def make(self, tenant_id: str, run_id: str, ref: PayloadRef, expires_at: datetime) -> MadeLink:
        """A link to content of a run, good until then (whole seconds). Raises what the payload store raises."""
        ...

    async def follow(self, tenant_id: str, run_id: str, token: str) -> Linked:
        """The content. Anything that was not made by ``make`` for this tenant and run: ``NotFoundError("link.invalid")``,
        whatever is wrong with it; one whose time is over: ``LivoaError("link.expired", status=410)``."""
        ...


class NoPayloadLinks:
    """Where no links can be made."""

    async def make(self, tenant_id: str, run_id: str, ref: PayloadRef, expires_at: datetime) -> MadeLink:
        """See ``PayloadLinks``. Raises ``LivoaError("link.unavailable")``."""
        raise LivoaError("link.unavailable", "Links to content cannot be made here.", status=503)

    async def follow(self, tenant_id: str, run_id: str, token: str) -> Linked:
        """See ``PayloadLinks``."""
        raise link_invalid()


def link_invalid() -> NotFoundError:
    """The one answer for a link that was never made, was changed, or leads nowhere any more."""
    return NotFoundError("link.invalid", "This link leads nowhere.")
