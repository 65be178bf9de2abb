"""Who may use the emulator: whoever signs with the shared key (SAS token, RFC-less but documented by Service Bus).

A token is ``SharedAccessSignature sr={uri}&sig={signature}&se={expiry}&skn={key name}``; the signature is HMAC-SHA256 over
``{uri}\\n{expiry}``, both as they stand in the token, in base64.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

_PREFIX = "SharedAccessSignature "


@dataclass(frozen=True, slots=True)
class SharedKey:
    """The namespace's one key. Its ``repr`` does not show it."""

    name: str
    secret: str

    def __repr__(self) -> str:
        return f"SharedKey({self.name!r})"

    def valid_until(self, token: str, now: datetime) -> datetime | None:
        """Until when ``token`` opens the namespace; None when it does not."""
        if not token.startswith(_PREFIX) or len(token) > 4_096:
            return None
        parts = dict(part.partition("=")[::2] for part in token[len(_PREFIX) :].split("&"))
        uri, expiry, name = parts.get("sr", ""), parts.get("se", ""), unquote(parts.get("skn", ""))
        if not uri or not expiry.isdecimal() or len(expiry) > 12 or name != self.name:
            return None
        made = hmac.new(self.secret.encode(), f"{uri}\n{expiry}".encode(), hashlib.sha256).digest()
        if not hmac.compare_digest(base64.b64encode(made).decode(), unquote(parts.get("sig", ""))):
            return None
        until_at = datetime.fromtimestamp(min(int(expiry), 253_402_300_799), UTC)
        return until_at if until_at > now else None
