"""Settings that say where state is kept: in a relational database or in Cosmos DB, and what wakes readers across processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from engine.adapters.cosmos_settings import CosmosSettings
from engine.domain.errors import LivoaError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """``cosmos`` is None when the stores are relational. ``redis_url`` may hold a password: it is never shown."""

    cosmos: CosmosSettings | None = None
    redis_url: str | None = field(default=None, repr=False)


def store_settings(env: Mapping[str, str], *, local: bool) -> StoreSettings:
    """Read and check them. Raises ``LivoaError("settings.invalid")``."""
    redis_url = env.get("LIVOA_REDIS_URL") or None
    if redis_url is not None and not _is_redis(redis_url, local=local):
        raise _error("LIVOA_REDIS_URL", "must be a rediss:// address (redis:// to this machine when local)")
    store = env.get("LIVOA_STORE") or "sql"
    if store not in ("sql", "cosmos"):
        raise _error("LIVOA_STORE", "must be one of sql, cosmos")
    if store == "sql":
        return StoreSettings(redis_url=redis_url)
    endpoint = env.get("LIVOA_COSMOS_ENDPOINT") or ""
    if not _is_cosmos(endpoint, local=local):
        raise _error("LIVOA_COSMOS_ENDPOINT", "must be an https:// address (http:// to this machine when local)")
    key = env.get("LIVOA_COSMOS_KEY") or None
    return StoreSettings(CosmosSettings(endpoint, env.get("LIVOA_COSMOS_DATABASE") or "livoa", key), redis_url)


def _is_cosmos(address: str, *, local: bool) -> bool:
    parts = urlsplit(address)
    # A key or a token over an open connection would be anybody's.
    return bool(parts.hostname) and (
        parts.scheme == "https" or (local and parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )


def _is_redis(address: str, *, local: bool) -> bool:
    parts = urlsplit(address)
    return bool(parts.hostname) and (
        parts.scheme == "rediss" or (local and parts.scheme == "redis" and parts.hostname in _LOOPBACK)
    )


def _error(name: str, problem: str) -> LivoaError:
    return LivoaError("settings.invalid", f"setting {name}: {problem}", status=500, pointer=f"/{name}")
