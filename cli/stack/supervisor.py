"""Keeps child processes alive: start, wait until ready, restart with backoff, stop in reverse order.

A child says that it is ready by one JSON line on stdout; the rest of its output goes to its log file. Deliberately small:
no dependency graph, no health polling. A child that keeps crashing ends the whole stack with the last lines of its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.stack.lifeline import die_with_parent, guarded_command

READY_TIMEOUT_S = 60.0
STOP_GRACE_S = 12.0
KILL_GRACE_S = 5.0
"""How long a process that was killed, or is being created, is waited for: asyncio waits for all who hold its pipes."""
EXIT_GRACE_S = 2.0
MAX_LOG_BYTES = 10_000_000
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 4.0)
_CRASH_WINDOW_S = 60.0


@dataclass(slots=True)
class ChildSpec:
    """What to run. ``command`` gets the facts of the child's last ready line, so that a restart keeps its port.

    ``hints`` are the next steps for exit codes that tell more than ``hint`` does.
    """

    name: str
    command: Callable[[Mapping[str, Any]], list[str]]
    environment: Mapping[str, str]
    log: Path
    cwd: Path
    hint: str = ""
    hints: Mapping[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Child:
    """One supervised process and what its ready line said; ``on_ready`` is called after each restart."""

    spec: ChildSpec
    process: asyncio.subprocess.Process | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    crashes: list[float] = field(default_factory=list)
    on_ready: Callable[[], None] = lambda: None


class Supervisor:
    """Starts children in order and keeps them until stopped. ``notify`` hears one line per noteworthy event."""

    def __init__(self, notify: Callable[[str], None], backoff_s: tuple[float, ...] = _BACKOFF_S) -> None:
        self._notify = notify
        self._backoff_s = backoff_s
        self._children: list[Child] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._drains: set[asyncio.Task[None]] = set()
        self._spawning: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None

    async def start(self, spec: ChildSpec) -> Child:
        """Start a child and wait for its ready line. One that is cancelled meanwhile is left to ``stop``.

        Raises CliError (UNREACHABLE) with the end of its log when it dies first or says nothing in time, and when ``stop`` has
        been called.
        """
        child = Child(spec)
        self._children.append(child)
        await self._launch(child)
        if self._ending is not None:
            raise _stopping(spec)
        self._watchers.append(asyncio.create_task(self._keep_alive(child), name=f"keep {spec.name}"))
        return child

    async def start_all(self, specs: Iterable[ChildSpec]) -> list[Child]:
        """Start children at the same time. Raises what the first failure raised, when no start is under way any more."""
        starts = [asyncio.create_task(self.start(spec), name=f"start {spec.name}") for spec in specs]
        try:
            return list(await asyncio.gather(*starts))
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)

    async def failed(self) -> None:
        """Returns never, or raises the CliError of a child that could not be kept alive."""
        if self._watchers:
            done, _ = await asyncio.wait(self._watchers, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def stop(self) -> None:
        """Stop all children, the last started first: SIGTERM, then SIGKILL after the grace period. For good, and repeatable.

        Nothing is started or restarted from here on. Goes on to the end when it is cancelled, and is cancelled then.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name="stop")
        cancelled: asyncio.CancelledError | None = None
        while not self._ending.done():
            try:
                await asyncio.shield(self._ending)
            except asyncio.CancelledError as err:
                cancelled = err
        self._ending.result()
        if cancelled is not None:
            raise cancelled

    async def _end(self) -> None:
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        if self._spawning:  # a child that is just being born is to be known before it can be stopped
            await asyncio.wait(self._spawning, timeout=KILL_GRACE_S)
        for child in reversed(self._children):
            await self._stop_child(child)

    async def _launch(self, child: Child) -> None:
        spec = child.spec
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        _rotate(spec.log)
        process = await self._spawned(child)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                child.facts = await _ready_line(process)
        except (TimeoutError, ValueError) as err:
            if not isinstance(err, TimeoutError):  # one that has closed its output is about to leave with a code
                await _has_ended(process, EXIT_GRACE_S)
            await self._stop_child(child)
            said = "said nothing" if isinstance(err, TimeoutError) else "ended"
            raise self._gave_up(child, f"the {spec.name} process {said} before it was ready") from err
        drain = asyncio.create_task(_drain(process, spec.log))
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)

    async def _spawned(self, child: Child) -> asyncio.subprocess.Process:
        """The new process of a child. Its creation goes on when this is cancelled: asyncio can wait for ever to undo one."""
        if self._ending is not None:
            raise _stopping(child.spec)
        spawning = asyncio.create_task(_spawn(child), name=f"spawn {child.spec.name}")
        self._spawning.add(spawning)
        spawning.add_done_callback(self._spawning.discard)
        await asyncio.shield(spawning)
        assert child.process is not None
        return child.process

    async def _keep_alive(self, child: Child) -> None:
        while True:
            assert child.process is not None
            code = await child.process.wait()
            now = time.monotonic()
            child.crashes = [at for at in child.crashes if now - at < _CRASH_WINDOW_S] + [now]
            if len(child.crashes) > len(self._backoff_s):
                raise self._gave_up(
                    child, f"the {child.spec.name} process crashed {len(child.crashes)} times in a minute"
                )
            pause_s = self._backoff_s[len(child.crashes) - 1]
            self._notify(f"{child.spec.name} ended (exit {code}); starting it again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            with contextlib.suppress(CliError):  # not ready counts as one more crash: the loop sees its exit code
                await self._launch(child)
                child.on_ready()
                self._notify(f"{child.spec.name} is back")

    async def _stop_child(self, child: Child) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        # Not process.terminate(): it polls, which takes the exit code away from asyncio's own watcher.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        if not await _has_ended(process, STOP_GRACE_S):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await _has_ended(process, KILL_GRACE_S)

    def _gave_up(self, child: Child, what: str) -> CliError:
        code = child.process.returncode if child.process is not None else None
        return CliError(
            what,
            hint=child.spec.hints.get(code if code is not None else -1) or child.spec.hint or f"read {child.spec.log}",
            exit_code=ExitCode.UNREACHABLE,
            code=f"stack.{child.spec.name}_failed",
            details=tail(child.spec.log),
        )


async def _spawn(child: Child) -> None:
    spec = child.spec
    with spec.log.open("ab") as log:
        child.process = await asyncio.create_subprocess_exec(
            *guarded_command(spec.command(child.facts)),
            stdin=asyncio.subprocess.PIPE,  # held open by us alone; the guard of other systems watches it
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=spec.cwd,
            env={**os.environ, **spec.environment},
            start_new_session=True,  # Ctrl-C reaches us only; we stop the children in order
            preexec_fn=die_with_parent(),
        )


async def _has_ended(process: asyncio.subprocess.Process, within_s: float) -> bool:
    """Whether a process ends in time. Not ``wait_for``: where both happen at once, it forgets that it was cancelled."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await process.wait()
    return process.returncode is not None


def _stopping(spec: ChildSpec) -> CliError:
    return CliError(
        f"the {spec.name} process is not started, because the stack is stopping",
        exit_code=ExitCode.UNREACHABLE,
        code="stack.stopping",
    )


async def _ready_line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The first JSON object the child prints. Raises ValueError when it ends without one."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict):
            return facts
    raise ValueError("no ready line")


async def _drain(process: asyncio.subprocess.Process, log: Path) -> None:
    """Move what else the child prints into its log; an unread pipe would block it one day."""
    assert process.stdout is not None
    while chunk := await process.stdout.read(65_536):
        with log.open("ab") as handle:
            handle.write(chunk)


def tail(log: Path, lines: int = 12) -> tuple[str, ...]:
    """The last lines of a log file, each at most 300 characters; empty when there is none."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - 16_384))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(line[:300] for line in text.splitlines()[-lines:])


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(log.suffix + ".1"))
