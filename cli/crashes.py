"""Killing a process of a stack in the middle of a run, as a demonstration, and counting what that cost."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.output import progress
from cli.paths import running_stack


class Crash:
    """Kills the host after the first finished step, and counts what ran again afterwards.

    A step counts as repeated when it starts once more after its success was in the event log.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._finished: set[str] = set()
        self.after_step: str | None = None
        self.finished_before: list[str] = []
        self.repeated: list[str] = []

    def see(self, event: Mapping[str, Any]) -> None:
        """Take notice of one event of the run."""
        step = event.get("data", {}).get("step_id")
        if step is None or event["data"].get("item") is not None:
            return
        if event["type"] == "step.started" and step in self._finished:
            self.repeated.append(step)
        if event["type"] != "step.succeeded":
            return
        self._finished.add(step)
        stack = running_stack(self._data) if self.after_step is None else None
        if stack is not None:
            os.kill(int(stack["host_pid"]), signal.SIGKILL)
            self.after_step, self.finished_before = step, sorted(self._finished)
            progress(f"killed the host (process {stack['host_pid']}, kill -9) after step {step}")

    def held(self) -> bool:
        """True when the host was killed and nothing ran twice."""
        return self.after_step is not None and not self.repeated

    def told(self) -> str:
        """What there is to tell; nothing when nobody was killed."""
        if self.after_step is None:
            return ""
        again = f"ran again: {', '.join(self.repeated)}" if self.repeated else "no finished step ran again"
        return f"the host was killed after {self.after_step} and came back; {again}"

    def report(self) -> dict[str, Any]:
        """For the JSON line."""
        return {"after_step": self.after_step, "finished_before": self.finished_before, "repeated": self.repeated}


class WorkerCrash:
    """Kills the worker that is the first to have a step, and watches what becomes of that step."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.step: str | None = None
        self.worker = ""
        self.workers: list[str] = []
        self.attempts = 0
        self.succeeded = 0

    def see(self, event: Mapping[str, Any]) -> None:
        """Take notice of one event of the run."""
        kind, data = event["type"], event.get("data", {})
        worker = data.get("worker") if kind == "step.progressed" else None
        if worker and self.step is None:
            self._kill(data["step_id"], worker)
        if data.get("step_id") == self.step and self.step is not None:
            self.attempts = max(self.attempts, data.get("attempt", 1))
            self.succeeded += kind == "step.succeeded"
            if worker:
                self.workers.append(worker)

    def _kill(self, step: str, worker: str) -> None:
        pid = (running_stack(self._data) or {}).get("worker_pids", {}).get(worker)
        if pid is not None:
            os.kill(int(pid), signal.SIGKILL)
            self.step, self.worker = step, worker
            progress(f"killed {worker} (process {pid}, kill -9) while it had step {step}")

    def held(self) -> bool:
        """True when a worker was killed and its step succeeded, once."""
        return self.step is not None and self.succeeded == 1

    def told(self) -> str:
        """What there is to tell; nothing when nobody was killed."""
        if self.step is None:
            return ""
        if self.attempts == 1:
            return f"{self.worker} was killed; its answer to {self.step} was stored already and counted"
        return f"{self.worker} was killed; {self.step} was taken back and carried out again, by {self.workers[-1]}"

    def report(self) -> dict[str, Any]:
        """For the JSON line."""
        return {"worker": self.worker, "step": self.step, "attempts": self.attempts, "taken_by": self.workers}
