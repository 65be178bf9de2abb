"""The cursor of a page of runs: opaque text that names the last run seen, bound to the tenant and the filter it was made for.

The binding is a digest, not a secret: whoever forges one can only move within the tenant whose runs every query is confined to
anyway. What it gives is that a cursor that was edited, cut or taken to another tenant or filter is refused instead of
returning a page that looks right.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime

from engine.domain.base import iso_utc
from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id
from engine.domain.run import Run
from engine.ports.run_store import RunFilter

_MAX_CURSOR_CHARS = 600


def cursor_after(run: Run, which: RunFilter) -> str:
    """The cursor of the page that follows ``run`` under a filter."""
    return _text(run.tenant_id, which, [iso_utc(run.created_at), run.run_id])


def position_of(cursor: str, tenant_id: str, which: RunFilter) -> tuple[str, str]:
    """``(created_at, run_id)`` of the last run seen; ``created_at`` in the sortable form of ``iso_utc``.

    Raises ``LivoaError("cursor.invalid")`` (400) for anything not made by ``cursor_after`` for this tenant and filter.
    """
    try:
        created_at, run_id = _position(cursor, tenant_id, which)
    except (ValueError, TypeError, RecursionError) as err:
        raise LivoaError(
            "cursor.invalid", "the cursor is not one of this list; start again without it", pointer="/cursor"
        ) from err
    return created_at, run_id


def _position(cursor: str, tenant_id: str, which: RunFilter) -> tuple[str, str]:
    if len(cursor) > _MAX_CURSOR_CHARS:
        raise ValueError("too long")
    padded = cursor + "=" * (-len(cursor) % 4)
    created_at, run_id, _ = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
    if iso_utc(datetime.fromisoformat(created_at)) != created_at or not is_wire_id(run_id):
        raise ValueError("not a position")
    # Comparing the whole text leaves one spelling: base64 has several for the same bytes.
    if cursor != _text(tenant_id, which, [created_at, run_id]):
        raise ValueError("made for something else")
    return created_at, run_id


def _text(tenant_id: str, which: RunFilter, position: list[str]) -> str:
    times = [iso_utc(at) if at is not None else None for at in (which.since, which.until)]
    status = which.status.value if which.status else None
    bound = json.dumps(["runs", tenant_id, status, *position, *(times if any(times) else ())])
    digest = hashlib.sha256(bound.encode()).hexdigest()[:32]
    text = json.dumps([*position, digest], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
