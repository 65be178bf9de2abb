"""Payloads as files named by their hash: ``payloads/{tenant}/{run}/{sha256}`` below a data directory.

A file appears whole or not at all (written aside, synced, renamed), readable by its owner only, and its content is checked
against its name whenever it is read. Not encrypted: the disk is trusted as far as the database beside it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path

from engine.adapters.payload_rules import checked, payload_not_found, refuse_too_large
from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id
from engine.domain.run import PayloadRef

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[a-z0-9_-][a-z0-9._-]*")


class FilesPayloadStore:
    """Payloads below ``data_dir``. File work happens in worker threads."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "payloads"

    async def put(self, tenant_id: str, run_id: str, data: bytes, media_type: str = "application/json") -> PayloadRef:
        """See ``PayloadStore.put``. Synced to disk when it returns."""
        refuse_too_large(data)
        ref = PayloadRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), media_type=media_type)
        directory = self._directory(tenant_id, run_id)
        try:
            await asyncio.to_thread(_write, directory / ref.sha256, bytes(data))
        except OSError as err:
            raise LivoaError(
                "payload.unavailable", f"the payload cannot be written: {err.strerror}", status=503
            ) from err
        return ref

    async def get(self, tenant_id: str, run_id: str, ref: PayloadRef) -> bytes:
        """See ``PayloadStore.get``."""
        path = self._directory(tenant_id, run_id) / ref.sha256
        return checked(await asyncio.to_thread(_read, path), ref)

    async def delete_run(self, tenant_id: str, run_id: str) -> int:
        """See ``PayloadStore.delete_run``."""
        return await asyncio.to_thread(_delete, self._directory(tenant_id, run_id))

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


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _holds(path, data):
        temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
        try:
            _write_synced(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    # Also when the file was there already: whoever wrote it may have been stopped before this.
    _sync_directory(path.parent)


def _holds(path: Path, data: bytes) -> bool:
    """True when the object is there and sound; a damaged one is written again."""
    try:
        return _read(path) == data
    except LivoaError:
        return False


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


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError) as err:
        raise payload_not_found() from err
    except OSError as err:
        raise LivoaError("payload.unavailable", f"the payload cannot be read: {err.strerror}", status=503) from err
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _delete(directory: Path) -> int:
    try:
        names = os.listdir(directory)  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return 0
    shutil.rmtree(directory)
    return sum(1 for name in names if _SHA256.fullmatch(name))
