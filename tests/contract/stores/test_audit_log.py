"""What every audit log promises: one chain per tenant that neither forks nor gaps, each entry once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import pytest

from engine.domain.errors import LivoaError
from engine.evidence import verify
from tests.contract.stores.builders import NOON, entry
from tests.contract.stores.conftest import Stores


async def test_entries_become_a_chain_that_holds(stores: Stores) -> None:
    appended = [await stores.audit.append(entry(f"e{n}", run_id=f"run-{n % 2}")) for n in range(5)]
    records = await stores.audit.read("contoso", after_seq=0, limit=10)
    assert records == tuple(appended)
    assert [r.seq for r in records] == [1, 2, 3, 4, 5]
    assert verify(records, "contoso") == []


async def test_a_known_entry_is_answered_with_the_record_it_has(stores: Stores) -> None:
    first = await stores.audit.append(entry("a"))
    await stores.audit.append(entry("b"))
    again = await stores.audit.append(entry("a", at=NOON + timedelta(hours=1), body={"step": "other"}))
    assert again == first
    assert len(await stores.audit.read("contoso", after_seq=0, limit=10)) == 2


async def test_an_entry_is_found_by_its_id(stores: Stores) -> None:
    assert await stores.audit.find("contoso", "a") is None
    first = await stores.audit.append(entry("a"))
    await stores.audit.append(entry("b"))
    assert await stores.audit.find("contoso", "a") == first
    assert await stores.audit.find("contoso", "c") is None
    assert await stores.audit.find("fabrikam", "a") is None


async def test_each_tenant_has_its_own_chain(stores: Stores) -> None:
    for tenant_id in ("contoso", "fabrikam"):
        record = await stores.audit.append(entry("a", tenant_id))
        assert (record.seq, record.tenant_id) == (1, tenant_id)
    assert [r.tenant_id for r in await stores.audit.read("fabrikam", after_seq=0, limit=10)] == ["fabrikam"]
    assert await stores.audit.read("nobody", after_seq=0, limit=10) == ()


async def test_records_can_be_read_from_a_place_and_of_one_run(stores: Stores) -> None:
    for number in range(6):
        await stores.audit.append(entry(f"e{number}", run_id=f"run-{number % 2}"))
    assert [r.seq for r in await stores.audit.read("contoso", after_seq=2, limit=2)] == [3, 4]
    assert [r.seq for r in await stores.audit.read("contoso", after_seq=1, limit=2, run_id="run-1")] == [2, 4]
    assert await stores.audit.read("contoso", after_seq=6, limit=2) == ()


async def test_a_body_that_cannot_be_proven_is_not_appended(stores: Stores) -> None:
    for body in ({"share": 0.5}, {"n": 2**60}, {"x": object()}):
        with pytest.raises(LivoaError):
            await stores.audit.append(entry("a", body=body))
    assert await stores.audit.read("contoso", after_seq=0, limit=10) == ()
    assert (await stores.audit.append(entry("a"))).seq == 1


async def test_a_hundred_appends_at_once_make_one_chain(stores: Stores) -> None:
    await asyncio.gather(*(stores.audit.append(entry(f"e{n % 70}")) for n in range(100)))
    records = await stores.audit.read("contoso", after_seq=0, limit=200)
    assert [r.seq for r in records] == list(range(1, 71))
    assert verify(records, "contoso") == []


APPEND = """
import asyncio, sys
from engine.adapters.sql import Database, SqlAuditLog
from engine.adapters.memory import SystemClock
from tests.contract.stores.builders import entry

async def main(url, name):
    database = Database(url, SystemClock())
    audit = SqlAuditLog(database)
    await audit.append(entry(f"ready-{name}"))
    shared = []
    for n in range(60):  # one after another: writes that wait together are one commit, and the processes would take turns
        if n % 20 == 0:  # three starts at once, so that both are in every third of the chain however busy the machine is
            print("ready", flush=True)
            sys.stdin.readline()
        if n == 0:
            shared = [asyncio.create_task(audit.append(entry(f"both-{m}"))) for m in range(20)]
        await audit.append(entry(f"{name}-{n}"))
    await asyncio.gather(*shared)
    await database.dispose()

asyncio.run(main(*sys.argv[1:]))
"""


def append_in_two_processes(url: str) -> list[int]:
    """Starts both, waits until both are connected, then lets them run; their exit codes."""
    command = [sys.executable, "-c", APPEND, url]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for name in ("left", "right")
        ]
        for process in processes:
            stack.callback(process.kill)
        for _ in range(3):
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
        return [process.wait(60) for process in processes]


async def test_two_processes_appending_at_once_do_not_fork_the_chain(
    sql_url: str, open_sql: Callable[[], Stores]
) -> None:
    audit = open_sql().audit
    codes = await asyncio.to_thread(append_in_two_processes, sql_url)
    assert codes == [0, 0]
    records = await audit.read("contoso", after_seq=0, limit=1000)
    assert [r.seq for r in records] == list(range(1, 143))
    assert verify(records, "contoso") == []
    authors = [r.entry_id.split("-")[0] for r in records if not r.entry_id.startswith(("ready", "both"))]
    assert authors != sorted(authors), "the processes took turns instead of appending at once"
