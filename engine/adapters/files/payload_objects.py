"""Objects of payloads as files: ``payloads/{tenant}/{run}/{name}`` below a data directory.

A file appears whole or not at all (written aside, synced, renamed) and is readable by its owner only. What is in it is sealed and
checked by who puts it there (``engine.adapters.sealed``).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from pathlib import Path

from engine.adapters.payload_objects import checked_name, folder_of, is_name
from engine.adapters.payload_rules import payload_unavailable


class FilesPayloadObjects:
    """Implements ``PayloadObjects`` below ``data_dir``. File work happens in worker threads."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "payloads"

    async def put(self, tenant_id: str, run_id: str, name: str, data: bytes) -> None:
        """See ``PayloadObjects.put``. Synced to disk when it returns."""
        directory = self._directory(tenant_id, run_id)
        try:
            await asyncio.to_thread(_write, directory / checked_name(name), data)
        except OSError as err:
            raise payload_unavailable(f"written: {err.strerror}") from err

    async def get(self, tenant_id: str, run_id: str, name: str) -> bytes | None:
        """See ``PayloadObjects.get``."""
        return await asyncio.to_thread(_read, self._directory(tenant_id, run_id) / checked_name(name))

    async def delete_run(self, tenant_id: str, run_id: str) -> int:
        """See ``PayloadObjects.delete_run``."""
        try:
            return await asyncio.to_thread(_delete, self._directory(tenant_id, run_id))
        except OSError as err:
            raise payload_unavailable(f"removed: {err.strerror}") from err

    def _directory(self, tenant_id: str, run_id: str) -> Path:
        return self._root / folder_of(tenant_id) / folder_of(run_id)


def _write(path: Path, data: bytes) -> None:
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        _write_synced(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _write_synced(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:  # the first object of its run
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
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
    return sum(1 for name in names if is_name(name))
