"""The data key of each run, wrapped. Whoever destroys it destroys the run's content, wherever copies of that content lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from engine.domain.errors import LivoaError


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key under another one. ``kek_id`` names the key-encryption key that unwraps it."""

    kek_id: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RunKey:
    """The record of a run's data key. ``wrapped`` is None once the key is destroyed; the record stays, so that no other key is
    ever made for that run."""

    tenant_id: str
    run_id: str
    key_id: str
    wrapped: WrappedKey | None
    created_at: datetime
    destroyed_at: datetime | None = None


class RunKeys(Protocol):
    """Key records by tenant and run."""

    async def get(self, tenant_id: str, run_id: str) -> RunKey | None:
        """The record, or None where no key was ever made."""
        ...

    async def create(self, key: RunKey) -> RunKey:
        """Keep ``key`` and return it; when the run has a record already, that one stands and is returned."""
        ...

    async def destroy(self, tenant_id: str, run_id: str, at: datetime) -> RunKey:
        """Forget the wrapped key for good and return what is left. Again, or where there was no key: the same, so that none can
        be made afterwards. The first ``destroyed_at`` stays."""
        ...

    async def ownerless(self, tenant_id: str, *, created_before: datetime, limit: int) -> tuple[RunKey, ...]:
        """Keys that are not destroyed, were made before then, and whose run does not exist: previews, and runs that never came
        to be. At most 1,000."""
        ...


class NoRunKeys:
    """Where nothing is encrypted."""

    async def get(self, tenant_id: str, run_id: str) -> RunKey | None:
        """See ``RunKeys``."""
        return None

    async def create(self, key: RunKey) -> RunKey:
        """See ``RunKeys``. Raises ``LivoaError("store.unavailable")``."""
        raise LivoaError("store.unavailable", "there is no place to keep keys of runs", status=503)

    async def destroy(self, tenant_id: str, run_id: str, at: datetime) -> RunKey:
        """See ``RunKeys``."""
        return RunKey(tenant_id, run_id, "", None, at, at)

    async def ownerless(self, tenant_id: str, *, created_before: datetime, limit: int) -> tuple[RunKey, ...]:
        """See ``RunKeys``."""
        return ()


class KeyWrapper(Protocol):
    """The key-encryption key. It never leaves where it is kept."""

    async def wrap(self, key: bytes) -> WrappedKey:
        """``key`` (at most 128 bytes) under the current key-encryption key. Raises ``LivoaError("payload.key_unavailable")``
        (503)."""
        ...

    async def unwrap(self, wrapped: WrappedKey) -> bytes:
        """The inverse, also for earlier key-encryption keys. Raises ``LivoaError``: ``payload.key_unavailable`` (503), or
        ``payload.key_invalid`` (500) for what was not wrapped by any of them."""
        ...
