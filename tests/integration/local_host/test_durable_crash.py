"""kill -9 of a real process in the middle of a run, several times: nothing is lost, nothing recorded runs again."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from local_host.durable.history import TaskCompleted, TaskScheduled, load_chunk
from tests.integration.local_host.durable_crash_app import STEPS

ROOT = Path(__file__).parents[3]


def launch(mode: str, database: Path, log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.local_host.durable_crash_app", mode, str(database), str(log)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def ends_in(log: Path) -> int:
    return log.read_text().count("end ") if log.exists() else 0


def starts_in(log: Path) -> Counter[str]:
    return Counter(line for line in log.read_text().splitlines() if line.startswith("start "))


def kill_after(process: subprocess.Popen[str], log: Path, ends: int) -> None:
    deadline = time.monotonic() + 40
    while ends_in(log) < ends:
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()


def recorded(database: Path) -> list[int]:
    """Ids of the completions in the main instance's history, in order."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT events FROM history WHERE instance_id = 'run' ORDER BY chunk").fetchall()
    return [event.task_id for (text,) in rows for event in load_chunk(text) if isinstance(event, TaskCompleted)]


def names_of(database: Path) -> dict[int, str]:
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT events FROM history WHERE instance_id = 'run' ORDER BY chunk").fetchall()
    scheduled = [e for (text,) in rows for e in load_chunk(text) if isinstance(e, TaskScheduled)]
    return {event.event_id: f"fan-{position}" for position, event in enumerate(scheduled)}


def test_a_killed_host_finishes_the_run_and_repeats_nothing_that_is_in_history(tmp_path: Path) -> None:
    database, log = tmp_path / "hub.db", tmp_path / "log.txt"
    process = launch("start", database, log)
    at_kill: list[tuple[set[str], Counter[str]]] = []
    for target in (12, 30, STEPS + 2):
        kill_after(process, log, ends_in(log) + 1 if ends_in(log) >= target else target)
        before = recorded(database)
        names = names_of(database)
        assert len(before) == len(set(before)), "a completion was processed twice"
        assert before, "nothing was recorded before the kill"
        at_kill.append(({names[task_id] for task_id in before}, starts_in(log)))
        process = launch("resume", database, log)
    out, _ = process.communicate(timeout=60)
    first, entity_state = out.strip().splitlines()
    assert json.loads(first) == {"status": "Completed", "output": str(STEPS + 5)}
    assert json.loads(entity_state) == 5
    after = recorded(database)
    assert sorted(after) == sorted(set(after))
    assert len(after) == STEPS
    finally_ran = starts_in(log)
    for safe, ran in at_kill:
        for name in safe:
            assert finally_ran[f"start {name}"] == ran[f"start {name}"], f"{name} was in history and ran again"
    # At-least-once: only work in flight at a kill may run again.
    assert sum(finally_ran.values()) - len(finally_ran) <= 3 * 8
