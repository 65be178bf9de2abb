"""What every place for anchors has in common: how they are named, so that a copy of one place can be read as another."""

from __future__ import annotations

import hashlib
import re

from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id

A_FOLDER = 1_000
"""Numbers per folder."""
_PLAIN = re.compile(r"[a-z0-9_-][a-z0-9._-]*")


def tenant_folder(tenant_id: str) -> str:
    """A name that is one folder everywhere and different for every id: ids that are no plain name get their hash."""
    if not is_wire_id(tenant_id):
        raise LivoaError("anchors.id_invalid", "an anchor's tenant must be an id", status=500)
    if _PLAIN.fullmatch(tenant_id) and not tenant_id.endswith("."):
        return tenant_id
    return "~" + hashlib.sha256(tenant_id.encode()).hexdigest()[:40]


def anchor_name(tenant_id: str, number: int) -> str:
    """``{tenant}/{number // 1000}/{number}.jws``, with zeros in front so that names sort as numbers."""
    return f"{tenant_folder(tenant_id)}/{number // A_FOLDER:09d}/{number:012d}.jws"


def anchors_unavailable(reason: str) -> LivoaError:
    """The one answer for a place that cannot be reached."""
    return LivoaError("anchors.unavailable", f"The anchors cannot be reached: {reason}.", status=503)
