"""A recorded execution as JSON, and its replay by the same code that rebuilds instances after a crash.

A recording holds what the durable store held: the start document and the history by episode, and the action list that the
orchestrator of its day had produced at the end. Of a history that a run left for a fresh one there may be a beginning only, which
has no end. Nothing of a request, a plan or an output is in it, because nothing of that
is in history.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from azure.durable_functions import Orchestrator

from engine.domain.names import MAP_ORCHESTRATOR, RUN_ORCHESTRATOR, STEP_ORCHESTRATOR
from local_host.durable.execution import Execution
from local_host.durable.history import Event, ExecutionCompleted, OrchestratorCompleted, from_row
from local_host.durable.records import Instance, get_instance
from orchestrators.map_orchestrator import map_orchestrator
from orchestrators.run_orchestrator import run_orchestrator
from orchestrators.step_orchestrator import step_orchestrator

FOLDER = Path(__file__).parent / "histories"
BODIES: dict[str, Callable[..., Any]] = {
    RUN_ORCHESTRATOR: run_orchestrator,
    MAP_ORCHESTRATOR: map_orchestrator,
    STEP_ORCHESTRATOR: step_orchestrator,
}


@dataclass(frozen=True)
class Recording:
    """One execution of one instance. ``episodes`` are lists of history rows, ``actions`` the final list on the wire."""

    instance_id: str
    name: str
    input_json: str | None
    episodes: list[list[dict[str, Any]]]
    actions: list[dict[str, Any]]

    @property
    def events(self) -> list[Event]:
        return [from_row(row) for rows in self.episodes for row in rows]

    @property
    def is_whole(self) -> bool:
        """True when it goes to the end of the instance."""
        return any(isinstance(event, ExecutionCompleted) for event in self.events)

    @property
    def result(self) -> Any:
        """What the orchestrator of its day returned."""
        return next(
            json.loads(event.result or "null") for event in self.events if isinstance(event, ExecutionCompleted)
        )


def replay(recording: Recording, body: Callable[..., Any], episodes: int | None = None) -> Execution:
    """Rebuild the execution from its first episodes (all by default) with an orchestrator.

    Raises ``NonDeterministicError`` when the orchestrator does not say what history recorded.
    """
    instance = Instance(
        instance_id=recording.instance_id, execution_id="recorded", name=recording.name, version=None, status="Running",
        suspended=False, input_json=recording.input_json, output=None, output_is_json=False, custom_status_json=None,
        created_at="", updated_at="",
    )  # fmt: skip
    chosen = recording.episodes[:episodes]
    execution = Execution(instance, Orchestrator.create(body), use_warm=False)
    execution.restore([from_row(row) for rows in chosen for row in rows], len(chosen))
    return execution


def listed_after(recording: Recording) -> list[int]:
    """How many actions had been listed when each recorded episode ended."""
    listed = [
        max((event.listed or 0 for event in map(from_row, rows) if isinstance(event, OrchestratorCompleted)), default=0)
        for rows in recording.episodes
    ]
    return list(accumulate(listed, max))


def read_store(database: Path, run_id: str) -> list[Recording]:
    """The recordings of a run and of the parts of its maps, from a durable store."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        query = "SELECT instance_id FROM instances WHERE instance_id = ? OR instance_id LIKE ? ORDER BY instance_id"
        ids = [row[0] for row in connection.execute(query, (run_id, f"{run_id}.%"))]
        return [with_actions(_rows_of(connection, instance_id)) for instance_id in ids]


def read_rows(database: Path, instance_id: str) -> Recording:
    """What is recorded of one execution at this moment, without its actions: quick enough to be asked often."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")  # one moment for the instance and its history
        return _rows_of(connection, instance_id)


def _rows_of(connection: sqlite3.Connection, instance_id: str) -> Recording:
    instance = get_instance(connection, instance_id)
    assert instance is not None
    query = "SELECT events FROM history WHERE instance_id = ? ORDER BY chunk"
    episodes = [json.loads(row[0]) for row in connection.execute(query, (instance_id,))]
    return Recording(instance_id, instance.name, instance.input_json, episodes, [])


def with_actions(recording: Recording) -> Recording:
    """The recording, with the actions that its orchestrator lists."""
    assert recording.episodes
    return replace(recording, actions=replay(recording, BODIES[recording.name]).listing.raw)


def save(path: Path, description: str, recordings: list[Recording]) -> None:
    """Write a fixture."""
    content = {"description": description, "executions": [vars(recording) for recording in recordings]}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> list[Recording]:
    """Read a fixture, or what `livoa host --export` wrote: that has no action lists, because a host cannot know them."""
    fields = Recording.__dataclass_fields__
    return [
        Recording(**{"actions": []} | {name: value for name, value in entry.items() if name in fields})
        for entry in json.loads(path.read_text(encoding="utf-8"))["executions"]
    ]
