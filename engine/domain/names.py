"""Durable names: what orchestrators and clients call, so that neither needs to import the other side."""

from __future__ import annotations

RUN_ORCHESTRATOR = "run_orchestrator"
MAP_ORCHESTRATOR = "map_orchestrator"
STEP_ORCHESTRATOR = "step_orchestrator"

PLAN_RUN = "plan_run"
PERFORM_STEP = "perform_step"
EXPAND_MAP = "expand_map"
COLLECT_MAP = "collect_map"
COMPOSE_ANSWER = "compose_answer"
FINISH_RUN = "finish_run"
UNDO_STEP = "undo_step"
REPAIR_PLAN = "repair_plan"
START_STEPS = "start_steps"
TELL_OUTCOME = "tell_outcome"
CHECKPOINT_RUN = "checkpoint_run"

TENANT_QUOTA = "tenant_quota"
"""Entity of a tenant: the leases of its runs. Key: the tenant."""
CIRCUIT_BREAKER = "circuit_breaker"
"""Entity of a circuit. Key: ``{capability}--{region}``, with ``--{tenant}`` for a tenant that has its own rules."""

INPUT_VERSION = 5
"""Version of the run orchestration's input. From 2 on the items of maps tell the instance that waits for them, so that an
approval's answer can be announced to it. From 3 on (``REPAIRS_SINCE``) a step that failed for good may have the plan repaired.
From 4 on (``ROLLS_SINCE``) a long run is handed on to a fresh history (ADR 0001). From 5 on (``HOLDS_SINCE``) a history that is
about to end holds steps back for a moment where everything open is short. Running instances keep the version they were started
with."""
REPAIRS_SINCE = 3
ROLLS_SINCE = 4
HOLDS_SINCE = 5

ROLL_AFTER = 100
"""How much a history takes in before the run goes on in a fresh one, where the input says nothing else."""
HOLD_MS = 200
"""How long a history, once, may hold new steps back so that it can end, where the input says nothing else: as long as it takes at
the least to hand steps on. It is done only for calls that are expected to take half of it."""

CANCEL_EVENT = "cancel"
"""External event that asks a run to stop. Its waiter lives as long as the run."""


def resume_event(number: int) -> str:
    """The external event that says: the ``number``-th suspension of the run is over, look into the store. One name each, so that
    one that comes early cannot end a later suspension."""
    return f"resume.{number}"


def map_part_id(run_id: str, step: int, first: int) -> str:
    """The instance of the part of map number ``step`` that begins with item ``first``. A stable id: whoever looks for a part of a
    run finds it, and a second one of the same kind is refused."""
    return f"{run_id}.map-{step}-{first}"


def apart_id(run_id: str, call: str) -> str:
    """The instance that carries out one call of a run apart from the run's own history. The same call, the same instance."""
    return f"{run_id}.{call}"


def outcome_event(call: str) -> str:
    """The external event that brings the outcome of a call that is carried out apart. One name for each call."""
    return f"outcome.{call}"


def approval_event(approval_id: str) -> str:
    """The external event that says: this approval has an answer, look into the store. One name each, because of several early
    events of one name an instance sees only the last."""
    return f"approval.{approval_id}"
