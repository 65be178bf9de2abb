"""One host per data directory: an advisory file lock that the operating system releases when the process dies.

Deliberately not a pid file: after `kill -9` a pid may belong to somebody else, a lock belongs to nobody.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_host.errors import HostError


@contextmanager
def instance_lock(data_dir: Path) -> Iterator[None]:
    """Hold the data directory. Raises HostError `host.already_running` when another host has it."""
    path = data_dir / "host.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            _take(descriptor)
        except OSError as err:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            message = f"another host (pid {holder}) uses this data directory; stop it or choose another --data"
            raise HostError("host.already_running", message, str(data_dir)) from err
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, tries: int = 3) -> None:
    """The lock, or OSError. Asked for again soon: somebody who looks whether a host runs holds it for a moment."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            tries -= 1
            if not tries:
                raise
            time.sleep(0.02)
