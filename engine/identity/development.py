"""The development issuer: an authority for one machine, with its own key pair, whose tokens pass the ordinary validation.

It exists so that authentication is never off. It is refused anywhere but in the ``local`` environment, and only there is
its issuer trusted (``WithDevelopmentIssuer``): a tenant's configuration never names it.
"""

from __future__ import annotations

import json
import os
import secrets
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.domain.errors import LivoaError
from engine.domain.execute import EXECUTE_AUDIENCE
from engine.domain.principal import Role
from engine.domain.tenant import TenantConfig
from engine.identity.claims import USER_SCOPE
from engine.identity.key_files import publish, write_beside
from engine.identity.keys import TENANT_PLACEHOLDER, SigningKey, parse_jwks
from engine.ports.clock import Clock
from engine.ports.tenant_directory import TenantDirectory

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

ISSUER_TEMPLATE = f"https://development.livoa.invalid/{TENANT_PLACEHOLDER}/v2.0"
"""``.invalid`` never resolves (RFC 2606): nobody can serve keys under this name."""
KEY_FILE = "development-key.pem"
JWKS_FILE = "development-jwks.json"
MAX_LIFETIME_S = 24 * 3600
PLATFORM_DIRECTORY = "livoa-platform"
"""In whose name the engine itself calls agents."""

_NAMES = uuid.UUID("6c1f6c0e-9a3b-5d0f-8a44-1f0b8d6f5c55")
_KEY_BITS = 2048


def directory_id(tenant_id: str) -> str:
    """The ``tid`` that development tokens of a tenant carry: a GUID that follows from its id."""
    return str(uuid.uuid5(_NAMES, f"directory/{tenant_id}"))


def _object_id(tenant: str, user: str, kind: str) -> str:
    return str(uuid.uuid5(_NAMES, f"{kind}/{tenant}/{user}"))


def subject_of(tenant: str, user: str, kind: Literal["user", "app"] = "user") -> str:
    """The subject of whoever speaks with a development token of this name."""
    return f"{directory_id(tenant)}:{_object_id(tenant, user, kind)}"


def issuer_of(tenant_id: str) -> str:
    """The ``iss`` of development tokens of a tenant."""
    return ISSUER_TEMPLATE.replace(TENANT_PLACEHOLDER, directory_id(tenant_id))


CLIENT_APP = str(uuid.uuid5(_NAMES, "client/cli"))
"""The ``azp`` of tokens for people and tools of the developer."""
ENGINE_APP = str(uuid.uuid5(_NAMES, "client/engine"))
"""The ``azp`` of tokens with which the engine calls agents."""


def require_local(environment: str) -> None:
    """Raises ``LivoaError("auth.development_issuer_refused")`` unless the environment is ``local``."""
    if environment != "local":
        raise LivoaError(
            "auth.development_issuer_refused",
            "The development issuer works only with LIVOA_ENV=local. Set LIVOA_ENV=local on a developer's machine; "
            "anywhere else set LIVOA_JWKS_URL to your directory's key document and use its tokens.",
            status=500,
        )


class WithDevelopmentIssuer:
    """A tenant directory for which development tokens speak too. Every configured tenant can be spoken for."""

    def __init__(self, inner: TenantDirectory, *, environment: str) -> None:
        require_local(environment)
        self._inner = inner

    async def get(self, tenant_id: str) -> TenantConfig | None:
        """See ``TenantDirectory``."""
        return await self._inner.get(tenant_id)

    async def by_directory(self, issuer: str, directory_id: str) -> TenantConfig | None:
        """See ``TenantDirectory``; the development client is allowed in what a development token leads to."""
        if issuer != ISSUER_TEMPLATE.replace(TENANT_PLACEHOLDER, directory_id):
            return await self._inner.by_directory(issuer, directory_id)
        for tenant in await self._inner.all():
            if issuer == issuer_of(tenant.tenant_id):
                return tenant.model_copy(update={"allowed_client_apps": (*tenant.allowed_client_apps, CLIENT_APP)})
        return None

    async def all(self) -> tuple[TenantConfig, ...]:
        """See ``TenantDirectory``."""
        return await self._inner.all()


class DevelopmentIssuer:
    """Mints access tokens and publishes its key. Also a ``KeySource``."""

    def __init__(self, private_key: RSAPrivateKey, clock: Clock) -> None:
        self._private_key, self._clock = private_key, clock
        self._jwks = _public_jwks(private_key)
        self._keys = parse_jwks(json.dumps(self._jwks).encode())

    @classmethod
    def open(cls, data_dir: Path, clock: Clock, *, environment: str) -> DevelopmentIssuer:
        """The issuer of this data directory; makes its key pair (mode 0600) and ``development-jwks.json`` when there is none.

        Raises ``LivoaError``: ``auth.development_issuer_refused`` outside ``local``, ``auth.development_key_invalid`` for a
        damaged key file.
        """
        require_local(environment)
        data_dir.mkdir(parents=True, exist_ok=True)
        issuer = cls(_load_or_create_key(data_dir / KEY_FILE), clock)
        published = json.dumps(issuer.jwks(), indent=2).encode() + b"\n"
        publish(data_dir / JWKS_FILE, published)
        return issuer

    def jwks(self) -> dict[str, Any]:
        """The public half as a JWKS document."""
        return self._jwks

    async def key(self, kid: str) -> SigningKey | None:
        """See ``KeySource``."""
        return self._keys.get(kid)

    def mint(
        self,
        tenant: str,
        user: str,
        roles: Iterable[Role],
        *,
        audience: str,
        lifetime_s: int = 3600,
        kind: Literal["user", "app"] = "user",
    ) -> str:
        """A token for ``user`` (or an app of that name) of ``tenant`` with these app roles.

        Raises ``LivoaError("auth.lifetime_invalid")`` for a lifetime outside 1 s to 24 h.
        """
        app = {"azp": CLIENT_APP, "idtyp": "app"}
        delegated = {"azp": CLIENT_APP, "scp": USER_SCOPE}
        claims = {
            "oid": _object_id(tenant, user, kind),
            "roles": sorted(Role(role).value for role in roles),
        } | (app if kind == "app" else delegated)
        return self._sign(tenant, claims, audience=audience, lifetime_s=lifetime_s)

    def mint_for_agents(self, *, audience: str = EXECUTE_AUDIENCE, lifetime_s: int = 600) -> str:
        """The app token with which the engine calls agents: role ``Agent.Execute``, in the platform's own directory."""
        claims = {
            "oid": str(uuid.uuid5(_NAMES, "app/engine")),
            "azp": ENGINE_APP,
            "idtyp": "app",
            "roles": [Role.AGENT_EXECUTE.value],
        }
        return self._sign(PLATFORM_DIRECTORY, claims, audience=audience, lifetime_s=lifetime_s)

    def _sign(self, tenant: str, claims: Mapping[str, Any], *, audience: str, lifetime_s: int) -> str:
        import jwt

        if not 0 < lifetime_s <= MAX_LIFETIME_S:
            raise LivoaError("auth.lifetime_invalid", f"A token lives 1 to {MAX_LIFETIME_S} seconds.", status=422)
        now = self._clock.now()
        payload = {
            "iss": issuer_of(tenant),
            "tid": directory_id(tenant),
            "aud": audience,
            "ver": "2.0",
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=lifetime_s)).timestamp()),
            "uti": secrets.token_urlsafe(16),
            **claims,
        }
        return jwt.encode(payload, self._private_key, algorithm="RS256", headers={"kid": self._jwks["keys"][0]["kid"]})


def _public_jwks(private_key: RSAPrivateKey) -> dict[str, Any]:
    import hashlib

    from jwt.algorithms import RSAAlgorithm

    public = RSAAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
    members = {"e": public["e"], "kty": "RSA", "n": public["n"]}
    # The key's own thumbprint (RFC 7638), so that a new key pair can never be taken for the old one.
    thumbprint = hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return {"keys": [members | {"use": "sig", "alg": "RS256", "kid": thumbprint[:32], "issuer": ISSUER_TEMPLATE}]}


def _load_or_create_key(path: Path) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not path.exists():
        _create_key(path)
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, RSAPrivateKey) or key.key_size < _KEY_BITS:
            raise ValueError("not an RSA key of acceptable size")
    except (ValueError, TypeError) as err:
        raise LivoaError(
            "auth.development_key_invalid", f"{path.name} is damaged; delete it to get a new one.", status=500
        ) from err
    return key


def _create_key(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65_537, key_size=_KEY_BITS)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    temporary = write_beside(path, pem, 0o600)
    # Linking fails where the file exists already: of two processes that start together one wins, and both use its key.
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
