"""Run check stages as bounded child processes and tell how each went. Knows nothing of which checks there are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_RUNNING: set[subprocess.Popen[str]] = set()


@dataclass(frozen=True, slots=True)
class Stage:
    """One check. ``streamed`` shows its output as it comes; ``skip`` is a reason not to run it at all."""

    name: str
    command: Sequence[str]
    timeout_s: float
    streamed: bool = False
    environment: Mapping[str, str] | None = None
    skip: str = ""


@dataclass(frozen=True, slots=True)
class StageResult:
    """How a stage ended. ``note`` is the closing line of its output, or the reason it was skipped."""

    name: str
    status: str
    exit_code: int
    seconds: float
    note: str = ""

    @property
    def failed(self) -> bool:
        """True for a stage that ran and did not pass."""
        return self.status == "failed"


def run_stage(stage: Stage, cwd: Path) -> StageResult:
    """Run one stage to its end or its timeout. Its output goes to stderr: as it comes when streamed, else on failure."""
    if stage.skip:
        return StageResult(stage.name, "skipped", 0, 0.0, stage.skip)
    started = time.monotonic()
    environment = {**os.environ, **(stage.environment or {})}
    with subprocess.Popen(
        stage.command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        expired = threading.Event()
        watchdog = threading.Timer(stage.timeout_s, _stop_group, (process, expired))
        watchdog.start()
        _RUNNING.add(process)
        lines: list[str] = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if stage.streamed:
                    sys.stderr.write(line)
            code = process.wait()
        except BaseException:  # Ctrl-C in the main thread
            _stop_group(process, expired)
            raise
        finally:
            _RUNNING.discard(process)
            watchdog.cancel()
    if expired.is_set():
        code, note = 124, f"stopped after {stage.timeout_s:.0f} s"
    else:
        note = next((line.strip(" =\n") for line in reversed(lines) if line.strip()), "")
    if code != 0 and not stage.streamed:
        sys.stderr.write(f"\n--- {stage.name} ---\n{''.join(lines)}")
    return StageResult(stage.name, "failed" if code else "passed", code, time.monotonic() - started, note)


def stop_running() -> None:
    """End every stage at once. For Ctrl-C: the children are in sessions of their own and would stay."""
    for process in list(_RUNNING):
        _stop_group(process, threading.Event())


def _stop_group(process: subprocess.Popen[str], expired: threading.Event) -> None:
    expired.set()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
