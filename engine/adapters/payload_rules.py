"""The rules every payload store applies: the cap, the check of content against its reference, and the refusals."""

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
        raise payload_corrupt(ref.sha256)
    return data


def payload_corrupt(name: str) -> LivoaError:
    """What is there is not what was put there."""
    return LivoaError("payload.corrupt", f"payload {name} is not the content it was", status=500)


def payload_unavailable(reason: str) -> LivoaError:
    """The one answer for a place that cannot be reached or written."""
    return LivoaError("payload.unavailable", f"the payload cannot be {reason}", status=503, retry_after_s=1)


def payload_not_found() -> NotFoundError:
    """The one answer for absent content and for another tenant's or run's."""
    return NotFoundError("payload.not_found", "there is no such payload in this run")


def payload_erased() -> LivoaError:
    """The content was there once, and its key has been destroyed."""
    return LivoaError("payload.erased", "the content of this run has been erased", status=410)
