"""Policies as files: ``policies/platform``, ``policies/default`` and ``policies/tenants/{tenant}``, each with ``*.cedar``.

A change takes effect within seconds, for running runs too. Nothing is guessed: a file that cannot be read, or a platform folder
without policies, makes all of them unavailable, and then nothing is allowed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id
from engine.ports.clock import Clock
from engine.ports.policy import PolicyText, PolicyTexts

LOOK_AGAIN_AFTER_S = 2.0
"""How long policies are taken from memory before the files are looked at again."""

MAX_FILE_BYTES = 1024 * 1024
_MAX_FILES = 500
_MAX_TENANTS_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class _Seen:
    looked_at: datetime
    texts: PolicyTexts


class FilesPolicySource:
    """Implements the ``PolicySource`` port over ``root/policies``."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root / "policies"
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._have_own: set[str] = set()
        """Tenants whose own policies this process has seen: taking them away altogether takes a restart."""

    async def texts(self, tenant_id: str) -> PolicyTexts:
        """See ``PolicySource.texts``."""
        now = self._clock.now()
        seen = self._seen.get(tenant_id)
        # The lower bound: after a clock was set back, "not yet" could last for hours.
        if seen is not None and timedelta() <= now - seen.looked_at < timedelta(seconds=LOOK_AGAIN_AFTER_S):
            return seen.texts
        texts = await asyncio.to_thread(self._read, tenant_id)
        if len(self._seen) >= _MAX_TENANTS_KEPT:
            self._seen.clear()
        self._seen[tenant_id] = _Seen(now, texts)
        return texts

    def _read(self, tenant_id: str) -> PolicyTexts:
        if not is_wire_id(tenant_id) or tenant_id.startswith("."):
            raise _unavailable("the tenant's name is no folder name", "tenants")
        platform = self._folder("platform")
        if not platform:
            raise _unavailable("the platform's policies are missing", "platform")
        own = self._folder(f"tenants/{tenant_id}")
        if not own and (self._is_there(tenant_id) or tenant_id in self._have_own):
            # The policies for tenants without their own may allow what these forbade.
            raise _unavailable("the tenant's own policies have gone", f"tenants/{tenant_id}")
        if own:
            self._have_own.add(tenant_id)
        return PolicyTexts(platform, self._folder("default"), own)

    def _is_there(self, tenant_id: str) -> bool:
        try:
            return (self._root / "tenants" / tenant_id).is_dir()
        except OSError as error:
            raise _unavailable(
                f"the tenant's folder cannot be read ({type(error).__name__})", f"tenants/{tenant_id}"
            ) from error

    def _folder(self, name: str) -> tuple[PolicyText, ...]:
        folder = self._root / name
        try:
            paths = sorted(path for path in folder.iterdir() if path.suffix == ".cedar") if folder.is_dir() else []
            if len(paths) > _MAX_FILES:
                raise _unavailable(f"{name} has more than {_MAX_FILES} files", name)
        except OSError as error:
            raise _unavailable(f"{name} cannot be read ({type(error).__name__})", name) from error
        return tuple(PolicyText(f"{name}/{path.name}", _text(path, f"{name}/{path.name}")) for path in paths)


def _text(path: Path, name: str) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _unavailable(f"{name} has more than {MAX_FILE_BYTES} bytes", name)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unavailable(f"{name} cannot be read ({type(error).__name__})", name) from error


def _unavailable(words: str, pointer: str) -> LivoaError:
    return LivoaError("policy.unavailable", f"The policies cannot be read: {words}.", status=503, pointer=pointer)
