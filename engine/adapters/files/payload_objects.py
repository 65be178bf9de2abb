"""Objects of payloads as files: ``payloads/{tenant}/{run}/{name}`` below a data directory.

A file appears whole or not at all (written aside, synced, renamed) and is readable by its owner only. What is in it is sealed and
checked by who puts it there (``engine.adapters.sealed``).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path

from engine.adapters.payload_rules import payload_unavailable
from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id

_NAME = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[a-z0-9_-][a-z0-9._-]*")


class FilesPayloadObjects:
    """Implements ``PayloadObjects`` below ``data_dir``. File work happens in worker threads."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "payloads"

    async def put(self, tenant_id: str, run_id: str, name: str, data: bytes) -> None:
        """See ``PayloadObjects.put``. Synced to disk when it returns."""
        directory = self._directory(tenant_id, run_id)
        try:
            await asyncio.to_thread(_write, directory / _checked(name), data)
        except OSError as err:
            raise payload_unavailable(f"written: {err.strerror}") from err

    async def get(self, tenant_id: str, run_id: str, name: str) -> bytes | None:
        """See ``PayloadObjects.get``."""
        return await asyncio.to_thread(_read, self._directory(tenant_id, run_id) / _checked(name))

    async def delete_run(self, tenant_id: str, run_id: str) -> int:
        """See ``PayloadObjects.delete_run``."""
        try:
            return await asyncio.to_thread(_delete, self._directory(tenant_id, run_id))
        except OSError as err:
            raise payload_unavailable(f"removed: {err.strerror}") from err

    def _directory(self, tenant_id: str, run_id: str) -> Path:
        return self._root / _directory_name(tenant_id) / _directory_name(run_id)


def _directory_name(wire_id: str) -> str:
    """A name that is one directory on every file system and different for every id.

    The alphabet of ids allows ``..``, and ids that differ in case only would meet on a file system that ignores case; such
    ids get their hash, behind a character no id contains.
    """
    if not is_wire_id(wire_id):
        raise LivoaError("payload.id_invalid", "a payload's tenant and run must be ids", status=500)
    if _PLAIN.fullmatch(wire_id) and not wire_id.endswith("."):
        return wire_id
    return "~" + hashlib.sha256(wire_id.encode()).hexdigest()[:40]


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise LivoaError("payload.id_invalid", "a payload's name must be 64 hex digits", status=500)
    return name


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        _write_synced(temporary, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise payload_unavailable(f"read: {err.strerror}") from err


def _delete(directory: Path) -> int:
    try:
        names = os.listdir(directory)  # noqa: PTH208 - names are all that is needed
        shutil.rmtree(directory)
    except FileNotFoundError:
        return 0
    return sum(1 for name in names if _NAME.fullmatch(name))
