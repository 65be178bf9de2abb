"""Databases as earlier versions of the application made them, kept in ``tests/contract/stores/schemas``.

Before a change of the tables gets its number, ``python -m tests.support.old_schema > tests/contract/stores/schemas/NN.sql`` keeps
what the version until then makes, with something in it. A test asks for the file of every number but the latest.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from engine.adapters.memory import FixedClock
from engine.adapters.sql import Database, SqlAuditLog, SqlBudgetLedger, SqlRunStore
from engine.domain.status import RunStatus, StepStatus
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import claim, entry, event, run, step

FOLDER = Path(__file__).resolve().parents[1] / "contract" / "stores" / "schemas"
_FIRST = re.compile(r"(CREATE TABLE (runs|budgets|schema_version) |INSERT INTO \"(runs|budgets)\")")


def text_of(version: int) -> str:
    """The database of a version, as statements."""
    return (FOLDER / f"{version:02d}.sql").read_text(encoding="utf-8")


def statements_of(version: int) -> Iterator[str]:
    """Its tables and rows in an order that every dialect takes, without what only SQLite knows."""
    found, pending = [], ""
    for line in text_of(version).splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip().removesuffix(";"))
            pending = ""
    kept = [each for each in found if not each.startswith(("BEGIN", "COMMIT", "CREATE TRIGGER"))]
    for kind in ("CREATE TABLE", "INSERT", "CREATE INDEX"):
        of_kind = [each for each in kept if each.startswith(kind)]
        yield from sorted(of_kind, key=lambda each: _FIRST.match(each) is None)


async def fill(url: str) -> None:
    """Two runs, one of them over, with steps, events, a claim, an account and an audit chain."""
    clock = FixedClock()
    database = Database(url, clock)
    runs, audit, budgets = SqlRunStore(database, clock), SqlAuditLog(database), SqlBudgetLedger(database)
    await runs.create(run(status=RunStatus.RUNNING), [event("first")], claim())
    await runs.put_step(step(status=StepStatus.SUCCEEDED), [event("second")])
    await runs.put_step(step("each", item=0), [])
    done = RunChange(status=RunStatus.SUCCEEDED, finished_at=clock.now())
    await runs.change("contoso", "run-1", done, [event("last")])
    await runs.create(run("run-2", status=RunStatus.RUNNING), [event("first/2")], None)
    await budgets.open("contoso", "run-1", limit_micro_usd=100)
    await budgets.reserve("contoso", "run-1", "run-1/spend", amount_micro_usd=5)
    for number in range(3):
        await audit.append(entry(f"run-1/spend/{number}/dispatch.intended"))
    await database.dispose()


def main() -> None:
    """Print the database that this version makes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "livoa.db"
        asyncio.run(fill(f"sqlite:///{path}"))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sys.stdout.writelines(f"{line}\n" for line in connection.iterdump())


if __name__ == "__main__":
    main()
