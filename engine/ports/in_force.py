"""Where it is kept what decisions are made by, and since when."""

from __future__ import annotations

from typing import Literal, Protocol

from engine.domain.base import JsonObject

Kind = Literal["policy", "config"]


class InForceLog(Protocol):
    """Takes what is in force."""

    def is_noted(self, tenant_id: str, kind: Kind, version_sha256: str) -> bool:
        """Whether this process has put it on record, or found it there. Cheap."""
        ...

    async def note(self, tenant_id: str, kind: Kind, version_sha256: str, facts: JsonObject) -> None:
        """Put on record that this version is in force, unless the last record says so. Idempotent; never raises."""
        ...
