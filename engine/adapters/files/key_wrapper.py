"""The key-encryption key as a file that only its owner can read: one key of 64 hex digits a line, the first one wraps.

For one machine, and for a key that is mounted from elsewhere. To change it, put a new key above the old one; the old one goes on
unwrapping. Wrapping is RFC 3394 (AES-256), which notices every change of what it wrapped.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from engine.domain.errors import LivoaError
from engine.ports.run_keys import WrappedKey

_LINE = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES = 64 * 1024


class FileKeyWrapper:
    """Implements ``KeyWrapper`` with the keys in ``path``, read when first asked. ``create`` makes one (mode 0600) where there
    is none. Raises ``LivoaError("payload.key_unavailable")`` for a missing or damaged file."""

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path, self._create = path, create
        self._keys: dict[str, bytes] | None = None

    async def wrap(self, key: bytes) -> WrappedKey:
        """See ``KeyWrapper.wrap``. ``key`` has a multiple of 8 bytes."""
        from cryptography.hazmat.primitives.keywrap import aes_key_wrap

        kek_id, kek = next(iter((await self._all()).items()))
        return WrappedKey(kek_id, aes_key_wrap(kek, key))

    async def unwrap(self, wrapped: WrappedKey) -> bytes:
        """See ``KeyWrapper.unwrap``."""
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

        kek = (await self._all()).get(wrapped.kek_id)
        if kek is None:
            raise LivoaError(
                "payload.key_unavailable", f"the key file {self._path.name} lacks {wrapped.kek_id}", status=503
            )
        try:
            return aes_key_unwrap(kek, wrapped.data)
        except (InvalidUnwrap, ValueError) as err:
            raise LivoaError("payload.key_invalid", "the wrapped key of a run was changed", status=500) from err

    async def _all(self) -> dict[str, bytes]:
        if self._keys is None:
            self._keys = await asyncio.to_thread(_open, self._path, self._create)
        return self._keys


def _open(path: Path, create: bool) -> dict[str, bytes]:
    try:
        if create and not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        with path.open(encoding="ascii") as file:
            lines = file.read(_MAX_BYTES).split()
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is no text"
        raise _unusable(path, str(reason)) from err
    if not lines or not all(map(_LINE.fullmatch, lines)):
        raise _unusable(path, "it must hold keys of 64 hex digits, one a line")
    return {_kek_id(key): key for key in map(bytes.fromhex, lines)}


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    # Linking fails where the file exists already: of two processes that start together one wins, and both use its key.
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def _kek_id(key: bytes) -> str:
    return "file:" + hashlib.sha256(b"livoa/key-encryption-key\n" + key).hexdigest()[:16]


def _unusable(path: Path, reason: str) -> LivoaError:
    return LivoaError("payload.key_unavailable", f"the key file {path.name} cannot be used: {reason}", status=503)
