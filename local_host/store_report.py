"""Looks into the durable store of a data directory without a host: what is in it, and one instance's history to take along.

Both read only, beside a running host too. An export carries what a replay needs (start document and history by episode) and what
history holds is what orchestrators were told: an app that puts content into its durable inputs exports content.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from local_host.durable.history import load_chunk
from local_host.durable.records import PENDING_STARTS, Instance, InstanceFilter, get_instance, query_instances
from local_host.durable.tally import actions_in
from local_host.durable_part import STORAGE_FILE
from local_host.errors import HostError

BOUNDS_FILE = "bounds.json"
"""Where a running host leaves its bounds (`durable/admission.py`) for this report."""
MAX_EXPORTED_INSTANCES = 1_000
"""An instance with its children; more are cut off, and the export says so."""
_QUEUES = {"activities": "work", "timers": "timers", "messages": "inbox", "entity_messages": "entity_inbox"}


@contextmanager
def _store(data_dir: Path) -> Iterator[sqlite3.Connection]:
    """The store, read only; HostError `host.no_store` when there is none, `host.store_unreadable` when it is not one."""
    path = data_dir / STORAGE_FILE
    if not path.is_file():
        raise HostError("host.no_store", "no durable store in this data directory", str(data_dir))
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            connection.execute("BEGIN")  # one moment, however long the reading takes
            yield connection
    except sqlite3.Error as err:
        raise HostError("host.store_unreadable", str(err), str(path)) from err


def status(data_dir: Path) -> dict[str, Any]:
    """Whether a host runs on the directory, its instances by status, what is open, and how large the store is.

    Beside a running host, `bounds` are those from which on it takes no starts from outside; None otherwise.
    """
    with _store(data_dir) as connection:
        shown = "CASE WHEN suspended = 1 AND status IN ('Pending', 'Running') THEN 'Suspended' ELSE status END"
        counts = connection.execute(f"SELECT {shown}, count(*) FROM instances GROUP BY 1 ORDER BY 1")  # noqa: S608  # constant
        by_status = dict(counts.fetchall())
        open_work = {
            name: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  # fixed names
            for name, table in _QUEUES.items()
        }
        starts = connection.execute(f"SELECT count(*) FROM instances WHERE {PENDING_STARTS}").fetchone()[0]  # noqa: S608  # constant
        oldest = connection.execute(
            "SELECT instance_id, name, created_at FROM instances WHERE status IN ('Pending', 'Running')"
            " ORDER BY created_at, instance_id LIMIT 1"
        ).fetchone()
        largest = connection.execute(
            "SELECT instance_id, count(*), sum(length(events)) FROM history GROUP BY instance_id"
            " ORDER BY 3 DESC, 1 LIMIT 1"
        ).fetchone()
    files = [path for path in data_dir.glob(f"{STORAGE_FILE}*") if path.is_file()]
    pid = _holder(data_dir)
    return {
        "data": str(data_dir),
        "running_pid": pid,
        "instances": by_status,
        "open": open_work,
        "pending_starts": starts,
        "bounds": _bounds(data_dir) if pid is not None else None,
        "oldest_unfinished": dict(zip(("instance_id", "name", "created_at"), oldest, strict=True)) if oldest else None,
        "largest_history": dict(zip(("instance_id", "episodes", "bytes"), largest, strict=True)) if largest else None,
        "store_bytes": sum(path.stat().st_size for path in files),
    }


def _bounds(data_dir: Path) -> dict[str, int] | None:
    """The bounds of the running host; None while it starts or stops."""
    try:
        found: dict[str, int] = json.loads((data_dir / BOUNDS_FILE).read_text())
    except (OSError, ValueError):
        return None
    return found


def _holder(data_dir: Path) -> int | None:
    """The process that holds the directory's lock, or None."""
    try:
        descriptor = os.open(data_dir / "host.lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return int(os.read(descriptor, 32) or 0)
    finally:
        os.close(descriptor)  # gives the lock back, if it was taken
    return None


def export(data_dir: Path, instance_id: str) -> dict[str, Any]:
    """The executions of an instance, of those that it started and of those named after it, as `tests/replay` reads them.

    Of an instance that went on in a fresh history, the store has the last one.

    HostError `host.no_instance` when there is none of that id.
    """
    with _store(data_dir) as connection:
        if get_instance(connection, instance_id) is None:
            raise HostError("host.no_instance", f"no instance {instance_id}", str(data_dir))
        family = _family(connection, instance_id)
        executions = [_execution(connection, item) for item in family[:MAX_EXPORTED_INSTANCES]]
    return {
        "description": f"exported: {instance_id}",
        "is_complete": len(family) <= MAX_EXPORTED_INSTANCES,
        "executions": executions,
    }


def _family(connection: sqlite3.Connection, instance_id: str) -> list[Instance]:
    """An instance, then its children and theirs; those whose id begins with its id and a dot are its own as well."""
    by_parent: dict[str, list[Instance]] = {}
    every = query_instances(connection, InstanceFilter())
    for item in every:
        if item.parent is not None:
            by_parent.setdefault(item.parent.instance_id, []).append(item)
    found = [item for item in every if item.instance_id == instance_id]
    found += [item for item in every if item.instance_id.startswith(f"{instance_id}.") and item.parent is None]
    for item in found:  # grows while it is walked; an instance has one parent, so that ends
        found += by_parent.get(item.instance_id, [])
    return found


def _execution(connection: sqlite3.Connection, item: Instance) -> dict[str, Any]:
    query = "SELECT events FROM history WHERE instance_id = ? ORDER BY chunk"
    texts = [row[0] for row in connection.execute(query, (item.instance_id,))]
    return {
        "instance_id": item.instance_id,
        "name": item.name,
        "input_json": item.input_json,
        "status": item.runtime_status,
        "durable_actions": asdict(actions_in(event for text in texts for event in load_chunk(text))),
        "episodes": [json.loads(text) for text in texts],
    }
