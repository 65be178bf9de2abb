"""Identifiers and the one alphabet they share.

The durable SDK puts ids into URLs unescaped, so every id that can get there is confined to ``[A-Za-z0-9._-]{1,100}``.
Idempotency keys of steps are the exception: they travel in headers and bodies only and use ``/`` as a separator that
cannot occur inside an id, which makes them unambiguous.
"""

from __future__ import annotations

import re
from typing import Annotated, NewType

from pydantic import StringConstraints

WIRE_ID_PATTERN = r"^[A-Za-z0-9._-]{1,100}$"
_WIRE_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")

TenantId = NewType("TenantId", str)
RunId = NewType("RunId", str)
StepId = NewType("StepId", str)
PlanHash = NewType("PlanHash", str)
CapabilityName = NewType("CapabilityName", str)
IdempotencyKey = NewType("IdempotencyKey", str)

WireId = Annotated[str, StringConstraints(pattern=WIRE_ID_PATTERN)]
"""A string field confined to the alphabet of wire ids."""

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def is_wire_id(text: str) -> bool:
    """True when ``text`` may be used as a run, step, tenant or event id."""
    return _WIRE_ID.fullmatch(text) is not None


def run_id_from(milliseconds: int, entropy: bytes) -> RunId:
    """A sortable run id: ``run-`` + 48 bits of Unix time in ms + 80 random bits, Crockford base 32 (the ULID layout).

    ``entropy`` must be at least 10 bytes; the caller supplies it, because the domain knows neither clock nor randomness.
    """
    if len(entropy) < 10:
        raise ValueError("a run id needs 10 bytes of entropy")
    number = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(entropy[:10], "big")
    digits = []
    for _ in range(26):
        number, digit = divmod(number, 32)
        digits.append(_CROCKFORD[digit])
    return RunId("run-" + "".join(reversed(digits)))


UNDO_SUFFIX = ".undo"
"""What the records of a step's undoing are called after its id. No step of a plan has such an id."""


def undo_id(step_id: str) -> str:
    """Under which id the undoing of a step is recorded, in the store and in events."""
    return step_id + UNDO_SUFFIX


def step_key(run_id: str, step_id: str, item: int | None = None) -> IdempotencyKey:
    """The idempotency key of one effect: ``{run}/{step}[/{item}]``. The attempt is not part of it, so a retry of a step
    that did succeed on the other side is answered with the stored result instead of a second effect."""
    return IdempotencyKey(f"{run_id}/{step_id}" if item is None else f"{run_id}/{step_id}/{item}")
