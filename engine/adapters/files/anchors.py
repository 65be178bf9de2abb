"""Signed checkpoints as read-only files: ``{root}/{tenant}/{number // 1000}/{number}.jws``, each written once.

Meant for a folder of another trust domain: a mounted share with an immutability policy, or a disk that the audit store's
operators cannot write. On an ordinary disk the files are merely read-only; whoever owns the disk can remove them, which the next
checkpoint and every verification notice.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from engine.adapters.anchor_rules import A_FOLDER, anchor_name, anchors_unavailable, tenant_folder
from engine.adapters.store_rules import bounded
from engine.domain.checkpoint import Anchor
from engine.domain.errors import LivoaError
from engine.evidence.signed import MAX_JWS_BYTES

_FOLDER = re.compile(r"[0-9]{9}")
_FILE = re.compile(r"([0-9]{12})\.jws")


class FilesAnchors:
    """Anchors below ``root``. File work happens in worker threads."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, tenant_id: str, anchor: Anchor) -> bool:
        """See ``Anchors.put``. Synced to disk when it returns; raises ``LivoaError("anchors.unavailable")``."""
        path = self.path(tenant_id, anchor.number)
        try:
            return await asyncio.to_thread(_create, path, anchor.jws.encode())
        except OSError as err:
            raise _unavailable(err) from err

    async def latest(self, tenant_id: str) -> Anchor | None:
        """See ``Anchors.latest``."""
        return await asyncio.to_thread(self._latest, tenant_id)

    async def read(self, tenant_id: str, *, after: int, limit: int) -> tuple[Anchor, ...]:
        """See ``Anchors.read``. At most 1,000 a call."""
        return await asyncio.to_thread(self._read, tenant_id, after, bounded(limit))

    def path(self, tenant_id: str, number: int) -> Path:
        """Where the anchor of this number is, or would be."""
        return self._root / anchor_name(tenant_id, number)

    def _folder(self, tenant_id: str) -> Path:
        return self._root / tenant_folder(tenant_id)

    def _latest(self, tenant_id: str) -> Anchor | None:
        try:
            for folder in reversed(_folders(self._folder(tenant_id))):
                if numbers := _numbers(folder):
                    return _anchor(folder, numbers[-1])
        except OSError as err:
            raise _unavailable(err) from err
        return None

    def _read(self, tenant_id: str, after: int, limit: int) -> tuple[Anchor, ...]:
        try:
            numbers = self._numbers_after(tenant_id, after)
            return tuple(_anchor(folder, number) for (folder, number), _ in zip(numbers, range(limit), strict=False))
        except OSError as err:
            raise _unavailable(err) from err

    def _numbers_after(self, tenant_id: str, after: int) -> Iterator[tuple[Path, int]]:
        for folder in _folders(self._folder(tenant_id)):
            if int(folder.name) >= after // A_FOLDER:
                yield from ((folder, number) for number in _numbers(folder) if number > after)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if _FOLDER.fullmatch(path.name))


def _numbers(folder: Path) -> list[int]:
    """Those that belong there: a copy in another folder is no anchor, or an old one could be made to look like the latest."""
    found = (_FILE.fullmatch(name) for name in os.listdir(folder))  # noqa: PTH208 - names are all that is needed
    numbers = sorted(int(match[1]) for match in found if match)
    return [number for number in numbers if number // A_FOLDER == int(folder.name)]


def _anchor(folder: Path, number: int) -> Anchor:
    descriptor = os.open(folder / f"{number:012d}.jws", os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_JWS_BYTES + 1)
    # What is no text is no signed checkpoint either; it is refused where it is taken apart.
    return Anchor(number, data.decode("latin-1"))


def _create(path: Path, data: bytes) -> bool:
    """Linking fails where the file exists: it appears whole, once, and is never written over."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    for folder in (path.parent, path.parent.parent):
        _sync(folder)
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(err: OSError) -> LivoaError:
    return anchors_unavailable(err.strerror or type(err).__name__)
