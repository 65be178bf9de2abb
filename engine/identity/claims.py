"""The claims of an access token whose signature holds: what must be there, and the principal that follows from it. Pure.

Facts: claims of Entra ID v2.0 access tokens. ``tid`` and ``oid`` are GUIDs and together the only stable key of a caller;
``azp`` is the client application; ``idtyp`` is ``app`` in app-only tokens; ``scp`` is a space-separated list in delegated ones.
Nothing is ever authorised by e-mail, name or UPN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeGuard

from engine.domain.principal import Principal, Role
from engine.domain.tenant import TenantConfig
from engine.identity.errors import forbidden, refused

REQUIRED = ("exp", "nbf", "iat", "iss", "aud", "tid", "oid", "ver")
LEEWAY_S = 60
MAX_ROLES = 200
USER_SCOPE = "access_as_user"
"""The delegated permission a user's client must have been granted for this API."""

_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_KNOWN_ROLES = {role.value: role for role in Role}
_MAX_INSTANT = 253_402_300_800
"""The year 10000: what lies beyond is no date to Python either."""


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """The claims that decide, each of the right type. Times in seconds since 1970."""

    issuer: str
    directory_id: str
    object_id: str
    client_app: str
    kind: Literal["user", "app"]
    roles: tuple[str, ...]
    scopes: frozenset[str]
    groups_known: bool
    token_id: str
    authenticated_at: datetime


def read_claims(raw: Mapping[str, Any], *, audience: str, now: datetime) -> TokenClaims:
    """Check everything about the claims that needs no look-up. Raises ``LivoaError`` with status 401."""
    if any(name not in raw for name in REQUIRED):
        raise refused("auth.claims_missing")
    _check_times(raw, now)
    if raw["aud"] != audience or not isinstance(raw["aud"], str):
        raise refused("auth.audience_wrong")
    if raw["ver"] != "2.0":
        raise refused("auth.token_invalid")
    scopes = _scopes(raw)
    return TokenClaims(
        issuer=_text(raw, "iss", 300),
        directory_id=_guid(raw, "tid"),
        object_id=_guid(raw, "oid"),
        client_app=_client_app(raw),
        kind=_kind(raw, scopes),
        roles=_roles(raw),
        scopes=scopes,
        groups_known=_groups_known(raw),
        token_id=_optional_text(raw, "uti"),
        authenticated_at=datetime.fromtimestamp(_instant(raw, "auth_time" if "auth_time" in raw else "iat"), UTC),
    )


def _check_times(raw: Mapping[str, Any], now: datetime) -> None:
    at = now.timestamp()
    if _instant(raw, "exp") <= at - LEEWAY_S:
        raise refused("auth.token_expired")
    if max(_instant(raw, "nbf"), _instant(raw, "iat")) > at + LEEWAY_S:
        raise refused("auth.token_not_yet_valid")


def _instant(raw: Mapping[str, Any], name: str) -> int:
    value = raw[name]
    # bool is an int to Python, and a huge number is no date.
    if type(value) is not int or not 0 <= value < _MAX_INSTANT:
        raise refused("auth.token_invalid")
    return value


def _text(raw: Mapping[str, Any], name: str, max_chars: int) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= max_chars:
        raise refused("auth.token_invalid")
    return value


def _optional_text(raw: Mapping[str, Any], name: str) -> str:
    return _text(raw, name, 200) if name in raw else ""


def is_guid(value: object) -> TypeGuard[str]:
    """True for the text form of a GUID."""
    return isinstance(value, str) and _GUID.fullmatch(value) is not None


def subject_of(directory_id: str, object_id: str) -> str:
    """The one spelling of who somebody is: a GUID is the same in any case, and nobody is a second person by spelling."""
    return f"{directory_id}:{object_id}".lower()


def _guid(raw: Mapping[str, Any], name: str) -> str:
    value = _text(raw, name, 36)
    if not is_guid(value):
        raise refused("auth.token_invalid")
    return value


def _client_app(raw: Mapping[str, Any]) -> str:
    # An id token carries no azp: whoever it was issued to did not ask for this API.
    if "azp" not in raw:
        raise refused("auth.claims_missing")
    return _text(raw, "azp", 100)


def _scopes(raw: Mapping[str, Any]) -> frozenset[str]:
    value = raw.get("scp", "")
    if not isinstance(value, str):
        raise refused("auth.token_invalid")
    return frozenset(value.split(" ")) - {""}


def _kind(raw: Mapping[str, Any], scopes: frozenset[str]) -> Literal["user", "app"]:
    """App-only tokens say so; a token that has neither ``idtyp`` nor a scope could be anybody's."""
    if raw.get("idtyp", "user") == "app" and not scopes:
        return "app"
    if raw.get("idtyp", "user") == "user" and scopes:
        return "user"
    raise refused("auth.token_kind")


def _roles(raw: Mapping[str, Any]) -> tuple[str, ...]:
    value = raw.get("roles", [])
    if not isinstance(value, list) or len(value) > MAX_ROLES or not all(isinstance(role, str) for role in value):
        raise refused("auth.token_invalid")
    return tuple(value)


def _groups_known(raw: Mapping[str, Any]) -> bool:
    """False when the directory left the groups out because there are too many: unknown is not the same as none."""
    pointers = raw.get("_claim_names")
    return not (raw.get("hasgroups") or (isinstance(pointers, Mapping) and "groups" in pointers))


def principal_for(claims: TokenClaims, tenant: TenantConfig | None) -> Principal:
    """The principal, given the tenant for which the token's (issuer, directory) speaks.

    Raises ``LivoaError``: 401 ``auth.tenant_unknown`` or ``auth.client_not_allowed``, 403 ``auth.tenant_suspended`` or
    ``auth.scope_missing``. Roles that this project does not know grant nothing.
    """
    if tenant is None:
        raise refused("auth.tenant_unknown")
    if tenant.status != "active":
        raise forbidden("auth.tenant_suspended", "This tenant is suspended.")
    if claims.client_app not in tenant.allowed_client_apps:
        raise refused("auth.client_not_allowed")
    if claims.kind == "user" and USER_SCOPE not in claims.scopes:
        raise forbidden("auth.scope_missing", f"The client application lacks the delegated permission {USER_SCOPE}.")
    return Principal(
        tenant_id=tenant.tenant_id,
        subject=subject_of(claims.directory_id, claims.object_id),
        kind=claims.kind,
        client_app=claims.client_app,
        roles=frozenset(_KNOWN_ROLES[role] for role in claims.roles if role in _KNOWN_ROLES),
        scopes=claims.scopes,
        actor_chain=(claims.client_app,),
        groups_known=claims.groups_known,
        token_id=claims.token_id,
        authenticated_at=claims.authenticated_at,
    )
