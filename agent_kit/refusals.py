"""Who was turned away: one record for each, and counts. For whoever watches the agents; the orchestrator's audit log knows of its
own calls only, and a stranger's call is none of those.

A record says the code, the kind of refusal, where it was asked, the capability where a valid grant names one, and the SHA-256 of
whom the token says it is for. Never a body, a token, an input or an address. Records are bounded in time, counts are complete.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from agent_kit.auth import MAX_TOKEN_BYTES
from agent_kit.problems import RefusedError
from engine.domain.errors import LivoaError
from engine.domain.strict_json import parse

_LOG = logging.getLogger("agent_kit.refusals")
METRIC = "livoa_agent_refusals_total"
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_RECORDS = 100
"""Most records in one window: who floods an agent must not flood what collects its logs."""
WINDOW_S = 10.0


class Refusals:
    """What one agent process has refused since it started."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._monotonic = monotonic
        self._window_ends, self._left, self._left_out = 0.0, MAX_RECORDS, 0

    def add(
        self,
        refusal: RefusedError,
        *,
        place: str,
        capability: str | None = None,
        authorization: Sequence[str] = (),
        is_known: bool = False,
    ) -> None:
        """Count a refusal, and put it on record unless it only says "later" to a caller who is in order.

        ``is_known``: the token was found good, so its subject is one.
        """
        self._counts[refusal.code, place] += 1
        if refusal.retryable or not self._may_record():
            return
        fields: dict[str, Any] = {
            "code": refusal.code,
            "reason": refusal.title,
            "http_status": refusal.status,
            "place": place,
            "capability": capability,
            "subject_sha256": subject_sha256(authorization),
            "subject_verified": is_known,
        }
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        _LOG.warning("refused", extra=fields)

    def _may_record(self) -> bool:
        now = self._monotonic()
        if now >= self._window_ends:
            self._window_ends, self._left = now + WINDOW_S, MAX_RECORDS
        if self._left == 0:
            self._left_out += 1
            return False
        self._left -= 1
        return True

    def exposition(self) -> str:
        """The counts in the text format of Prometheus. Codes and places are the kit's own words, so there are few."""
        lines = [f"# HELP {METRIC} Requests that were refused.", f"# TYPE {METRIC} counter"]
        for (code, place), count in sorted(self._counts.items()):
            lines.append(f'{METRIC}{{code="{code}",place="{place}"}} {count}')
        return "\n".join(lines) + "\n"


def subject_sha256(authorization: Sequence[str]) -> str | None:
    """The hash of issuer and subject that a token names, whether or not it is good; None where it names none."""
    _, _, token = (authorization[0] if len(authorization) == 1 else "").partition(" ")
    parts = token.strip().split(".")
    if len(token) > MAX_TOKEN_BYTES or len(parts) != 3:
        return None
    try:
        # Not by a library that verifies: what is forged need not even be well formed beside its claims.
        claims = parse(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), max_bytes=MAX_TOKEN_BYTES)
    except (LivoaError, ValueError):
        return None
    subject = (claims.get("sub") or claims.get("azp")) if isinstance(claims, dict) else None
    if not isinstance(subject, str):
        return None
    return hashlib.sha256(json.dumps([str(claims.get("iss")), subject], separators=(",", ":")).encode()).hexdigest()
