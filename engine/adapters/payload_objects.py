"""What a payload store keeps its objects in: bytes by tenant, run and name. It cannot tell what they mean."""

from __future__ import annotations

from typing import Protocol


class PayloadObjects(Protocol):
    """Objects by tenant, run and name (64 hex digits). Every method raises ``LivoaError("payload.unavailable")`` (503) when it
    cannot be done, and ``LivoaError("payload.id_invalid")`` (500) for a tenant or run that is no id."""

    async def put(self, tenant_id: str, run_id: str, name: str, data: bytes) -> None:
        """Keep bytes durably before returning, whole or not at all; they replace what was there."""
        ...

    async def get(self, tenant_id: str, run_id: str, name: str) -> bytes | None:
        """The bytes, or None."""
        ...

    async def delete_run(self, tenant_id: str, run_id: str) -> int:
        """Remove every object of a run; how many there were. Stopped in between and done again, it removes the rest."""
        ...
