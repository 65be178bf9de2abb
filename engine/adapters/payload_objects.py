"""What a payload store keeps its objects in: bytes by tenant, run and name. It cannot tell what they mean."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id

_NAME = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[a-z0-9_-][a-z0-9._-]*")


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


def folder_of(wire_id: str) -> str:
    """A name that is one folder everywhere and different for every id.

    The alphabet of ids allows ``..``, and ids that differ in case only would meet on a file system that ignores case; such
    ids get their hash, behind a character no id contains.
    """
    if not is_wire_id(wire_id):
        raise LivoaError("payload.id_invalid", "a payload's tenant and run must be ids", status=500)
    if _PLAIN.fullmatch(wire_id) and not wire_id.endswith("."):
        return wire_id
    return "~" + hashlib.sha256(wire_id.encode()).hexdigest()[:40]


def is_name(name: str) -> bool:
    """True for 64 hex digits."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """``name``, when it is one. Raises ``LivoaError("payload.id_invalid")`` (500)."""
    if not is_name(name):
        raise LivoaError("payload.id_invalid", "a payload's name must be 64 hex digits", status=500)
    return name
