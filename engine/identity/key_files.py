"""Key files: written beside their place first, so that no reader ever sees half of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def publish(path: Path, data: bytes) -> None:
    """Put ``data`` there for everybody to read, unless it is there already."""
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_beside(path, data, 0o644).replace(path)


def write_beside(path: Path, data: bytes, mode: int) -> Path:
    """A new durable file in the folder of ``path``, of that mode; to be moved or linked to its place."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary
