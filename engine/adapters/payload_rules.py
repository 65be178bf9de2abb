"""The rules every payload store applies: the cap, the check of content against its reference, and the two refusals."""

from __future__ import annotations

import hashlib

from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.run import PayloadRef

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
"""Largest single payload."""


def refuse_too_large(data: bytes) -> None:
    """Raise ``LivoaError("payload.too_large")`` (413) for content over the cap."""
    if len(data) > MAX_PAYLOAD_BYTES:
        raise LivoaError(
            "payload.too_large", f"{len(data)} bytes; a payload has at most {MAX_PAYLOAD_BYTES}", status=413
        )


def checked(data: bytes, ref: PayloadRef) -> bytes:
    """``data`` if it is what ``ref`` names; ``LivoaError("payload.corrupt")`` (500) otherwise."""
    if len(data) != ref.size_bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
        raise LivoaError("payload.corrupt", f"payload {ref.sha256} is not the content it was", status=500)
    return data


def payload_not_found() -> NotFoundError:
    """The one answer for absent content and for another tenant's or run's."""
    return NotFoundError("payload.not_found", "there is no such payload in this run")
