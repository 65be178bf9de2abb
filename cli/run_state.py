"""What a run looks like from outside, folded from its events. Pure: no clock, no terminal, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SUCCESS = "succeeded"
_STEP_EVENTS = {
    "step.ready": "waiting",
    "step.started": "running",
    "step.progressed": "running",
    "step.retried": "waiting",
    "step.succeeded": "succeeded",
    "step.failed": "failed",
    "step.denied": "denied",
    "step.skipped": "skipped",
    "step.cancelled": "cancelled",
}
_RUN_EVENTS = {
    "run.accepted": "accepted",
    "plan.proposed": "planning",
    "plan.vetted": "running",
    "plan.repaired": "running",
    "run.resumed": "running",
    "run.suspended": "suspended",
    "run.succeeded": "succeeded",
    "run.partial": "partial",
    "run.denied": "denied",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
    "run.terminated": "terminated",
}


@dataclass(slots=True)
class StepState:
    """One step as the events tell it. ``items_done`` of ``items`` for a ``for_each`` step; ``worker``
    has or had it, over the bus."""

    step_id: str
    capability: str = ""
    status: str = "pending"
    attempt: int = 1
    duration_ms: int | None = None
    items: int | None = None
    items_done: int = 0
    note: str = ""
    worker: str = ""


@dataclass(slots=True)
class RunState:
    """A run as the events tell it. ``note`` is the reason of the last thing that went wrong or of degraded mode; ``waiting`` are
    the approvals that nobody has answered."""

    run_id: str
    status: str = "accepted"
    plan_hash: str | None = None
    plan_version: int = 0
    plan_in_force: bool = False
    playbook: str | None = None
    degraded: str | None = None
    note: str = ""
    answer_text: str = ""
    answer_attempt: int = 1
    steps: dict[str, StepState] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)

    def learn_plan(self, plan: Mapping[str, Any]) -> None:
        """Take up the steps of the plan, in its order."""
        known = self.steps
        self.steps = {}
        for entry in plan.get("steps", ()):
            step = known.get(entry["id"]) or StepState(entry["id"])
            step.capability = entry.get("capability") or step.capability or kind_of(entry)
            self.steps[entry["id"]] = step

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take up one event; events of later versions that we do not know change nothing."""
        kind, data = str(event["type"]), event.get("data", {})
        self.status = _RUN_EVENTS.get(kind, self.status)
        if kind in _STEP_EVENTS and "step_id" in data:
            self._apply_step(kind, data)
        elif kind.startswith("approval."):
            self._apply_approval(kind, data)
        elif kind.startswith("plan."):
            self.plan_in_force |= kind in {"plan.vetted", "plan.repaired"}
            self.plan_hash = data.get("plan_hash") or self.plan_hash
            self.plan_version = data.get("plan_version") or self.plan_version
            self.playbook = data.get("playbook") or self.playbook
        elif kind == "degraded.entered":
            self.degraded = data.get("reason")
        elif kind == "answer.delta" and data.get("answer_attempt", 1) == self.answer_attempt:
            self.answer_text += data.get("text") or ""
        elif kind == "answer.restarted":
            self.answer_text, self.answer_attempt = "", data.get("answer_attempt", self.answer_attempt + 1)
        if kind.startswith(("run.", "plan.rejected")):
            self.note = data.get("message") or data.get("code") or self.note
        self._wait_or_go_on()

    def _apply_approval(self, kind: str, data: Mapping[str, Any]) -> None:
        step = self.steps.get(data.get("subject", "")) if data.get("item") is None else None
        if kind == "approval.requested":
            self.waiting.add(str(data.get("approval_id")))
            if step is not None:
                step.status, step.note = "waiting", "waits for a person"
        else:
            self.waiting.discard(str(data.get("approval_id")))
            if step is not None:
                step.note = kind.removeprefix("approval.")

    def _wait_or_go_on(self) -> None:
        """A run waits for people when somebody was asked and nothing of it is under way."""
        live = {"planning", "running", "awaiting_approval"}
        if self.status in live:
            busy = any(step.status == "running" and not step.items for step in self.steps.values())
            if self.waiting and not busy:
                self.status = "awaiting_approval"
            elif self.status == "awaiting_approval":
                self.status = "running" if self.plan_in_force else "planning"

    def _apply_step(self, kind: str, data: Mapping[str, Any]) -> None:
        step = self.steps.setdefault(data["step_id"], StepState(data["step_id"]))
        step.capability = data.get("capability") or step.capability
        if data.get("item_count") is not None:
            step.items = data["item_count"]
        if data.get("item") is not None:
            step.items_done += kind == "step.succeeded"
            return
        step.worker = data.get("worker") or step.worker
        step.status = _STEP_EVENTS[kind]
        step.attempt = data.get("attempt", step.attempt)
        step.duration_ms = data.get("duration_ms", step.duration_ms)
        step.note = data.get("message") or data.get("code") or ""


def kind_of(entry: Mapping[str, Any]) -> str:
    """What a step of a plan does when it calls no capability."""
    return next((kind for kind in ("wait", "approval", "for_each") if kind in entry), "")


def result_of(run: Mapping[str, Any], steps: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The one JSON object that `demo` and `run` print."""
    shown = [{name: step.get(name) for name in ("id", "status", "attempt", "duration_ms", "error")} for step in steps]
    return {
        "run_id": run["run_id"],
        "status": run["status"],
        "degraded": run["degraded"],
        "plan_hash": run["plan_hash"],
        "planner": run.get("planner"),
        "error": run.get("error"),
        "steps": shown,
        "answer": run.get("answer"),
        "seconds": round(seconds, 2),
    }
