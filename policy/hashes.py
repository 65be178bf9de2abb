"""The SHA-256 that names a policy set, a schema or a set of facts: over sorted, compact, ASCII JSON of plain values."""

from __future__ import annotations

import hashlib
import json

from engine.domain.base import JsonValue


def sha256_of(value: JsonValue) -> str:
    """64 lower-case hex digits. Equal values have equal hashes, whatever the order of their members."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
