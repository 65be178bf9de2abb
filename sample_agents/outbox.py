"""``mail.send`` and ``ads.set_budget``: effects that stay on this machine, kept in one SQLite file.

A sample of how to have an effect once: the effect and the key of its step are written in one transaction, so a repeated call
finds what the first one did. Nothing is sent and no advertising account is touched; ``Outbox.mails`` is what a person or a test
looks at.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_kit import Agent, StepContext
from engine.domain.base import Frozen

_BUSY_S = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS mails (
  tenant TEXT NOT NULL, key TEXT NOT NULL, message_id TEXT NOT NULL, recipients TEXT NOT NULL,
  subject TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (tenant, key));
CREATE TABLE IF NOT EXISTS budgets (tenant TEXT NOT NULL, channel TEXT NOT NULL, amount INTEGER NOT NULL,
  PRIMARY KEY (tenant, channel));
CREATE TABLE IF NOT EXISTS changes (
  tenant TEXT NOT NULL, key TEXT NOT NULL, answer TEXT NOT NULL, PRIMARY KEY (tenant, key));
"""


class MailLine(Frozen):
    """See the manifest."""

    label: str
    value: str | float


class MailInputs(Frozen):
    """See the manifest."""

    to: tuple[str, ...]
    subject: str
    body: str
    lines: tuple[MailLine, ...] = ()


class BudgetInputs(Frozen):
    """See the manifest."""

    channel: str
    weekly_amount: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail as it would have been sent."""

    message_id: str
    recipients: tuple[str, ...]
    subject: str
    text: str


class Outbox:
    """Mails and budgets of all tenants in one file. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._ready = False
        self._lock = threading.Lock()

    def send(self, tenant_id: str, key: str, inputs: MailInputs) -> dict[str, Any]:
        """Keep one mail; the same key keeps it once and answers the same."""
        message_id = "mail-" + hashlib.sha256(f"{tenant_id}/{key}".encode()).hexdigest()[:24]
        text = "\n".join([inputs.body, *(f"{line.label}: {line.value}" for line in inputs.lines)])
        row = (tenant_id, key, message_id, json.dumps(inputs.to), inputs.subject, text)
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO mails VALUES (?, ?, ?, ?, ?, ?)", row)
        return {"message_id": message_id, "recipients": len(inputs.to)}

    def set_budget(self, tenant_id: str, key: str, inputs: BudgetInputs) -> dict[str, Any]:
        """Set a budget and say what it was; a repeated key changes nothing and answers as the first time."""
        with self._transaction() as connection:
            done = connection.execute("SELECT answer FROM changes WHERE tenant = ? AND key = ?", (tenant_id, key))
            found = done.fetchone()
            if found is not None:
                answer: dict[str, Any] = json.loads(found[0])
                return answer
            place = (tenant_id, inputs.channel)
            before = connection.execute("SELECT amount FROM budgets WHERE tenant = ? AND channel = ?", place).fetchone()
            change_id = "change-" + hashlib.sha256(f"{tenant_id}/{key}".encode()).hexdigest()[:24]
            answer = {"channel": inputs.channel, "weekly_amount": inputs.weekly_amount, "change_id": change_id}
            if before is not None:
                answer["previous_weekly_amount"] = before[0]
            connection.execute("INSERT OR REPLACE INTO budgets VALUES (?, ?, ?)", (*place, inputs.weekly_amount))
            connection.execute("INSERT INTO changes VALUES (?, ?, ?)", (tenant_id, key, json.dumps(answer)))
            return answer

    def mails(self, tenant_id: str) -> tuple[Mail, ...]:
        """Every mail of a tenant, in the order they were kept."""
        query = "SELECT message_id, recipients, subject, text FROM mails WHERE tenant = ? ORDER BY rowid"
        with self._transaction() as connection:
            rows = connection.execute(query, (tenant_id,)).fetchall()
        return tuple(Mail(row[0], tuple(json.loads(row[1])), row[2], row[3]) for row in rows)

    def budgets(self, tenant_id: str) -> dict[str, int]:
        """The weekly budgets that were set, by channel."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT channel, amount FROM budgets WHERE tenant = ?", (tenant_id,))
            return dict(rows.fetchall())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)) as connection:
            if not self._ready:
                with self._lock:
                    connection.executescript(_SCHEMA)
                    self._ready = True
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def register(agent: Agent, outbox: Outbox) -> None:
    """Add both capabilities to an agent."""

    @agent.capability("mail.send")
    async def mail_send(inputs: MailInputs, context: StepContext) -> dict[str, Any]:
        return await context.compute(outbox.send, context.tenant_id, context.request.idempotency_key, inputs)

    @agent.capability("ads.set_budget")
    async def ads_set_budget(inputs: BudgetInputs, context: StepContext) -> dict[str, Any]:
        return await context.compute(outbox.set_budget, context.tenant_id, context.request.idempotency_key, inputs)
