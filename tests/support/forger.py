"""Change what a run was asked for behind its approvals, as somebody with access to the machine could.

For tests, and for readers of docs/governance.md: `python -m tests.support.forger DATA RUN NAME=JSON …` puts another request
with other context values in the place of the run's, in a data folder whose host may be running.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.adapters.files import FilesPayloadObjects
from engine.adapters.files.key_wrapper import FileKeyWrapper
from engine.adapters.memory import SystemClock
from engine.adapters.sealed import RunKeyring, SealedPayloadStore
from engine.adapters.sql import Database, SqlRunKeys
from engine.domain.run import PayloadRef


def forge_request(data: Path, run_id: str, **values: Any) -> None:
    """Replace values of the context of a run's request. Raises LookupError for a run that the folder does not hold."""
    with closing(sqlite3.connect(data / "livoa.db", timeout=10)) as connection:
        row = connection.execute("SELECT tenant_id, document FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            raise LookupError(f"{data} holds no run {run_id}")
        tenant_id, document = row[0], json.loads(row[1])
        old = PayloadRef.model_validate(document["request_ref"])
        ref = asyncio.run(_replaced(data, tenant_id, run_id, old, values))
        document["request_ref"] = ref.model_dump(mode="json")
        connection.execute("UPDATE runs SET document = ? WHERE run_id = ?", (json.dumps(document), run_id))
        connection.commit()


async def _replaced(data: Path, tenant_id: str, run_id: str, old: PayloadRef, values: dict[str, Any]) -> PayloadRef:
    """Another request in the place of the run's, encrypted as the host would have done it."""
    database = Database(f"sqlite:///{data / 'livoa.db'}", SystemClock())
    wrapper = FileKeyWrapper(data / "payload-keys", create=False)
    keyring = RunKeyring(SqlRunKeys(database), wrapper, SystemClock())
    store = SealedPayloadStore(FilesPayloadObjects(data), keyring)
    request = json.loads(await store.get(tenant_id, run_id, old))
    request["context"]["values"] |= values
    ref = await store.put(tenant_id, run_id, json.dumps(request).encode())
    await database.dispose()
    return ref


def main(folder: str, run_id: str, *changes: str) -> None:
    """The command line."""
    values = {name: json.loads(value) for name, _, value in (change.partition("=") for change in changes)}
    forge_request(Path(folder), run_id, **values)
    print(f"the request of {run_id} now says {json.dumps(values)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
