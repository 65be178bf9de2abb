"""The part of a plan the orchestrator may hold: ids, needs, kinds, caps. No inputs, no literals, no text of anybody.

At most 64 bytes a step on average and 512 KiB in all, in the compact wire form of ``dumps``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

StepKind = Literal["call", "map", "wait", "approval"]
OnFailure = Literal["fail", "skip", "fallback", "repair"]

MAX_SKELETON_BYTES = 512 * 1024
UNDO_ATTEMPTS = 5
"""How often the undoing of one step is tried: scheduler and step runner count alike."""


@dataclass(frozen=True, slots=True)
class SkeletonStep:
    """One step as the scheduler sees it. ``needs`` and ``tolerates`` are indexes into ``Skeleton.steps``.

    ``tolerates`` lists the needs whose skip or failure does not skip this step, because every reference to them carries a
    default. ``undo`` says that its effect is to be undone when the run comes to nothing. ``retired``: a repair of the plan put
    others in its place; it has its end and starts nothing. Durations in seconds; ``expected_s`` is an estimate that
    orders work and says for what a history of a long run waits before it ends (ADR 0001).
    """

    id: str
    needs: tuple[int, ...] = ()
    tolerates: tuple[int, ...] = ()
    kind: StepKind = "call"
    optional: bool = False
    on_failure: OnFailure = "fail"
    max_attempts: int = 3
    backoff_s: float = 1.0
    factor: float = 2.0
    max_backoff_s: float = 60.0
    concurrency: int = 20
    expected_s: float = 1.0
    undo: bool = False
    cap: int = 0
    retired: bool = False


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The steps of one plan in an order in which every step follows its needs.

    ``caps`` bounds how many calls of one capability are open at a time: step ``s`` counts towards ``caps[s.cap - 1]``, and a
    ``cap`` of 0 towards none. ``repairs`` is how often the plan may be repaired.
    """

    steps: tuple[SkeletonStep, ...]
    max_parallel: int
    plan_hash: str
    caps: tuple[int, ...] = ()
    repairs: int = 0


_DEFAULTS = SkeletonStep(id="_")
_FIELDS = (
    ("n", "needs"),
    ("t", "tolerates"),
    ("k", "kind"),
    ("o", "optional"),
    ("f", "on_failure"),
    ("a", "max_attempts"),
    ("b", "backoff_s"),
    ("x", "factor"),
    ("m", "max_backoff_s"),
    ("c", "concurrency"),
    ("e", "expected_s"),
    ("u", "undo"),
    ("q", "cap"),
    ("z", "retired"),
)


def to_wire(skeleton: Skeleton) -> dict[str, Any]:
    """The compact JSON form: one short key per field that differs from the default."""
    return {
        "p": skeleton.max_parallel,
        "h": skeleton.plan_hash,
        **({"q": list(skeleton.caps)} if skeleton.caps else {}),
        **({"r": skeleton.repairs} if skeleton.repairs else {}),
        "s": [
            {"i": step.id}
            | {
                short: list(value) if isinstance(value, tuple) else value
                for short, name in _FIELDS
                if (value := getattr(step, name)) != getattr(_DEFAULTS, name)
            }
            for step in skeleton.steps
        ],
    }


def from_wire(wire: dict[str, Any]) -> Skeleton:
    """The inverse of ``to_wire``."""
    steps = []
    for entry in wire["s"]:
        fields: dict[str, Any] = {name: entry[short] for short, name in _FIELDS if short in entry}
        for name in ("needs", "tolerates"):
            if name in fields:
                fields[name] = tuple(fields[name])
        steps.append(SkeletonStep(id=entry["i"], **fields))
    caps, repairs = tuple(wire.get("q", ())), wire.get("r", 0)
    return Skeleton(steps=tuple(steps), max_parallel=wire["p"], plan_hash=wire["h"], caps=caps, repairs=repairs)


def size_bytes(skeleton: Skeleton) -> int:
    """Size of the wire form as it will stand in durable history."""
    return len(json.dumps(to_wire(skeleton), separators=(",", ":")).encode())
