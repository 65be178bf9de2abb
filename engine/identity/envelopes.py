"""From a message to who asks for what: a compact JWS by a key that stands in the configuration of one tenant (ADR 0010).

The header names tenant, sender and key; that is a hint where to look, and the signature decides. So the tenant of a message is
the one whose registered key signed it, whatever queue it came through and whatever else it says. No secret is in a message: it
may wait, be looked at and be replayed, and a replay is answered with the first run.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id
from engine.domain.principal import Principal, Role
from engine.domain.strict_json import parse
from engine.domain.tenant import PLATFORM_MAX_JSON_DEPTH, MessageSender, SenderKey, TenantConfig
from engine.identity.errors import forbidden
from engine.ports.clock import Clock
from engine.ports.identity import SignedRequest, Speaker, TokenRefusedError
from engine.ports.tenant_directory import TenantDirectory

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

ALGORITHM = "ES256"
ENVELOPE_TYPE = "livoa-run-request+jws"
CLAIMS = frozenset({"aud", "iat", "exp", "jti", "request"})
LEEWAY_S = 60
MAX_LIFETIME_S = 14 * 86_400
"""Longest time between ``iat`` and ``exp``: as long as a message may wait by default."""

_ROOM_FOR_CLAIMS = 4_096
_COMPACT = re.compile(rb"[A-Za-z0-9_-]{1,1000}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{1,200}")
_HEADERS = frozenset({"alg", "typ", "kid"})


def sender_subject(sender: str) -> str:
    """The subject of runs that a sender's messages submit. No token's subject begins so: those begin with a GUID."""
    return f"sender:{sender}"


class TenantEnvelopes:
    """The ``EnvelopeVerifier`` of the system: keys are those of the tenants' configurations, read anew for each message."""

    def __init__(self, tenants: TenantDirectory, clock: Clock, *, audience: str) -> None:
        self._tenants, self._clock, self._audience = tenants, clock, audience

    async def verify(self, message: bytes, *, max_bytes: int) -> SignedRequest:
        """See ``engine.ports.identity.EnvelopeVerifier``."""
        if len(message) > (max_bytes + _ROOM_FOR_CLAIMS) * 4 // 3 + _ROOM_FOR_CLAIMS:
            raise LivoaError("message.too_large", f"The request is larger than {max_bytes} bytes.", status=413)
        tenant_id, name, key_id = _named(message)
        tenant = await self._tenants.get(tenant_id)
        sender = _sender(tenant, name)
        key = next((k for k in sender.keys if k.key_id == key_id), None) if sender is not None else None
        if tenant is None or sender is None or key is None:
            raise _signature_invalid()
        payload = _verified(message, key)
        subject = sender_subject(sender.name)
        try:
            claims = parse(payload, max_bytes=max_bytes + _ROOM_FOR_CLAIMS, max_depth=PLATFORM_MAX_JSON_DEPTH + 1)
            message_id, issued = _checked(claims, self._audience, self._clock.now())
            if tenant.status != "active":
                raise forbidden("auth.tenant_suspended", "This tenant is suspended.")
        except LivoaError as err:
            raise TokenRefusedError(err, Speaker(tenant.tenant_id, subject, subject)) from err
        principal = Principal(
            tenant_id=tenant.tenant_id,
            subject=subject,
            kind="app",
            client_app=subject[:100],
            roles=frozenset({Role.RUNS_SUBMIT}),
            actor_chain=(subject,),
            token_id=message_id,
            authenticated_at=issued,
        )
        return SignedRequest(principal, message_id, claims["request"])


def _named(message: bytes) -> tuple[str, str, str]:
    """Tenant, sender and key that the header names. The header may ask for nothing but what is done anyway."""
    import jwt

    if _COMPACT.fullmatch(message) is None:
        raise _malformed("The message is not a compact JWS.")
    try:
        header = jwt.get_unverified_header(message)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise _malformed("The header of the message is not one of a JWS.") from None
    kid = header.get("kid")
    parts = kid.split("/") if isinstance(kid, str) else []
    plain = header.keys() == _HEADERS and header["alg"] == ALGORITHM and header["typ"] == ENVELOPE_TYPE
    if not plain or len(parts) != 3 or not all(map(is_wire_id, parts)):
        raise _malformed(
            f"The header must hold alg {ALGORITHM}, typ {ENVELOPE_TYPE} and kid TENANT/SENDER/KEY, and nothing else."
        )
    return parts[0], parts[1], parts[2]


def _sender(tenant: TenantConfig | None, name: str) -> MessageSender | None:
    return next((s for s in tenant.message_senders if s.name == name), None) if tenant is not None else None


def _verified(message: bytes, key: SenderKey) -> bytes:
    import jwt

    try:
        payload: bytes = jwt.PyJWS().decode(message, _public_key(key), algorithms=[ALGORITHM])
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise _signature_invalid() from None
    return payload


def _public_key(key: SenderKey) -> EllipticCurvePublicKey:
    """Raises ``ValueError`` for a point that is not on the curve: such a key verifies nothing."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

    return EllipticCurvePublicNumbers(_coordinate(key.x), _coordinate(key.y), SECP256R1()).public_key()


def _coordinate(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "="), "big")


def _checked(claims: Any, audience: str, now: datetime) -> tuple[str, datetime]:
    """The id of the message and when it was signed. Raises ``LivoaError`` with the claim's pointer."""
    if not isinstance(claims, dict) or claims.keys() != CLAIMS:
        raise _malformed(f"The signed content must hold exactly {', '.join(sorted(CLAIMS))}.")
    if claims["aud"] != audience:
        raise _refused("message.audience_wrong", "The message was signed for another application.", "/aud")
    issued, expires = _instant(claims, "iat"), _instant(claims, "exp")
    at = now.timestamp()
    if not issued < expires <= issued + MAX_LIFETIME_S:
        raise _malformed(f"exp must come after iat, by at most {MAX_LIFETIME_S} seconds.", "/exp")
    if issued > at + LEEWAY_S:
        raise _refused("message.not_yet_valid", "The message is not valid yet; check the clocks.", "/iat")
    if expires <= at - LEEWAY_S:
        raise _refused("message.expired", "The message has expired; sign and send it anew.", "/exp")
    message_id = claims["jti"]
    if not isinstance(message_id, str) or not is_wire_id(message_id):
        raise _malformed("jti must be 1 to 100 letters, digits, dots, underscores or dashes.", "/jti")
    return message_id, datetime.fromtimestamp(issued, UTC)


def _instant(claims: dict[str, Any], name: str) -> int:
    value = claims[name]
    if type(value) is not int or not 0 <= value < 253_402_300_800:  # the year 10000
        raise _malformed(f"{name} must be whole seconds since 1970.", f"/{name}")
    return value


def _refused(code: str, message: str, pointer: str | None = None) -> LivoaError:
    return LivoaError(code, message, status=401, pointer=pointer)


def _signature_invalid() -> LivoaError:
    # One answer for an unknown tenant, sender or key and for a wrong signature: nobody learns by knocking who is there.
    return _refused("message.signature_invalid", "No registered key of the named sender made this signature.")


def _malformed(message: str, pointer: str | None = None) -> LivoaError:
    return LivoaError("message.malformed", message, pointer=pointer)
