"""Content: requests, plans, inputs, outputs, answers. Rows and durable state hold references to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from engine.domain.run import PayloadRef


@dataclass(frozen=True, slots=True)
class Committed:
    """Content and the key of its commitment: HMAC-SHA-256 under it, over the content's SHA-256 (32 bytes), is the commitment.
    None: the commitment is the SHA-256 itself."""

    data: bytes
    key: bytes | None = field(default=None, repr=False)


class PayloadStore(Protocol):
    """Content-addressed bytes, per tenant and run. Writing the same content twice is one object."""

    async def put(self, tenant_id: str, run_id: str, data: bytes, media_type: str = "application/json") -> PayloadRef:
        """Store bytes durably before returning. Over the cap: ``LivoaError("payload.too_large", status=413)``; a store that
        cannot write: ``LivoaError("payload.unavailable", status=503)``."""
        ...

    async def get(self, tenant_id: str, run_id: str, ref: PayloadRef) -> bytes:
        """The bytes of ``ref``; their hash is checked. Absent or of another tenant or run: ``NotFoundError``; erased:
        ``LivoaError("payload.erased", status=410)``; corrupt: ``LivoaError("payload.corrupt", status=500)``."""
        ...

    async def committed(self, tenant_id: str, run_id: str, commitment: str) -> Committed:
        """What an audit record of the run commits to; checked. Raises as ``get``."""
        ...

    async def delete_run(self, tenant_id: str, run_id: str) -> int:
        """Erase the content of one run for good; returns the number of objects removed. Done again, it removes what is left.
        Nothing can be put into the run afterwards where content is encrypted: its key is gone (``payload.erased``)."""
        ...
