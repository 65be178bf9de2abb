"""A stack in a process of its own: starts `up`, waits for its line, stops it whatever happens to us."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.paths import ROOT
from cli.stack.lifeline import die_with_parent, guarded_command
from cli.stack.supervisor import tail

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0


class StackProcess:
    """`./livoa up` on a free port, with further ``arguments``. A context manager; ``url`` is set inside."""

    def __init__(self, data: Path, *, start_timeout_s: float = START_TIMEOUT_S, arguments: Sequence[str] = ()) -> None:
        self._data = data
        self._arguments = tuple(arguments)
        self._start_timeout_s = start_timeout_s
        self._log = data / "logs" / "up.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> StackProcess:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        self._data.mkdir(
            parents=True, exist_ok=True, mode=0o700
        )  # it holds keys and content; its folders inherit nothing
        self._log.parent.mkdir(exist_ok=True)
        where = ["--port", "0", "--data", str(self._data)]
        command = [sys.executable, "-m", "cli", "up", *where, *self._arguments, "--json"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                guarded_command(command),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us only
                preexec_fn=die_with_parent(),
            )
        self.url = str(self._first_line()["url"])

    def _first_line(self) -> dict[str, object]:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._start_timeout_s
        data = b""
        while not data.endswith(b"\n"):
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._process.stdout.fileno(), 65_536) if readable else b""
            if not chunk:
                said = "ended before it was up" if readable else f"was not up within {self._start_timeout_s:g} s"
                raise CliError(
                    f"the stack {said}",
                    hint=f"read the logs in {self._log.parent}",
                    exit_code=ExitCode.UNREACHABLE,
                    code="stack.not_started",
                    details=tail(self._log),
                )
            data += chunk
        line = json.loads(data)
        if "error" in line:
            error = line["error"]
            raise CliError(
                error["message"],
                hint=error.get("hint", ""),
                exit_code=ExitCode.UNREACHABLE,
                code=error["code"],
                details=tuple(error.get("details", ())),
            )
        assert isinstance(line, dict)
        return line

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C must not leave the stack half stopped
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
