"""Ties a child process to its parent's life, so that `kill -9` of the parent leaves nothing running.

Linux tells the kernel (PR_SET_PDEATHSIG, prctl(2)). Elsewhere a guard process (`python -m cli.stack.lifeline COMMAND…`)
stands between: its standard input is a pipe that only the parent holds open, and end of file means the parent is gone.
Deliberately SIGKILL: the death of the supervisor is a crash, and a crash is what the host's state survives.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def guarded_command(command: Sequence[str]) -> list[str]:
    """The command as it has to be started on this system."""
    if sys.platform == "linux":
        return list(command)
    return [sys.executable, "-m", "cli.stack.lifeline", *command]


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` that asks Linux to kill the child when the starting *thread* ends; None on other systems.

    Start such children from a thread that lives as long as they may: the main thread.
    """
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)  # loaded here, because little is safe between fork and exec

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return tie


def guard(command: Sequence[str]) -> int:
    """Run a command until it ends or standard input closes; hands SIGTERM and SIGINT on. Returns its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        process.kill()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: process.send_signal(received))
    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
