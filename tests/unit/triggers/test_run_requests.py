"""Runs by message: the same door as over HTTP, once for each message, and a reason for everything that is no run."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engine.adapters.memory import MemoryTenantDirectory
from engine.domain.audit import AuditType
from engine.domain.errors import LivoaError, Violation
from engine.domain.run import Run
from engine.domain.status import RunStatus
from engine.domain.tenant import Quota
from engine.identity import TenantEnvelopes
from engine.ports.quota import Admitted
from engine.ports.run_store import RunChange
from tests.contract.http.cases import BODIES, Case
from tests.support.envelopes import Sender
from tests.unit.identity.tokens import AUDIENCE, NOW
from tests.unit.triggers.world import INTENT, PLAN, World, tenant
from triggers.bus_run_requests import (
    LONGEST_DELAY_S,
    MAX_DELIVERIES,
    MAX_POSTPONED,
    MAX_TRIES,
    NotTakenError,
    Received,
    description_of,
    pause_s,
    received_of,
    take,
)


class DeadLetters:
    """The queue's other end: what was put aside, and why."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, str, str]] = []
        self.later: list[tuple[bytes, str, int, float]] = []

    async def postpone(self, body: bytes, message_id: str, *, times: int, delay_s: float) -> None:
        self.later.append((body, message_id, times, delay_s))

    async def dead_letter(self, lock_token: str, reason: str, description: str) -> None:
        assert max(len(reason), len(description)) <= 4_096
        self.letters.append((lock_token, reason, description))


class Queue:
    """A world with two senders, and messages handed to the trigger."""

    def __init__(self) -> None:
        self.world = World()
        self.erp, self.theirs = Sender("contoso", audience=AUDIENCE), Sender("fabrikam", audience=AUDIENCE)
        pages = MemoryTenantDirectory(
            [tenant(s.tenant_id, message_senders=(s.registered(),)) for s in (self.erp, self.theirs)]
        )
        self.dead = DeadLetters()
        self.pauses: list[float] = []
        envelopes = TenantEnvelopes(pages, self.world.clock, audience=AUDIENCE)
        self.world.with_deps(envelopes=envelopes, run_requests=self.dead, tenants=pages)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def deliver(self, body: bytes, delivery: int = 1) -> Run | None:
        received = Received(body, "lock-1", delivery)
        return await take(received, self.world.deps, self.world.engine, pause=self.pause)

    async def submitted(self, body: bytes) -> Run:
        run = await self.deliver(body)
        assert run is not None, self.dead.letters
        return run

    async def refused(self, body: bytes) -> tuple[str, dict[str, Any]]:
        """Reason and problem of a message that became a dead letter at its first delivery."""
        assert await self.deliver(body) is None
        lock, reason, description = self.dead.letters.pop()
        assert (lock, self.dead.letters) == ("lock-1", [])
        problem = json.loads(description)
        assert problem["code"] == reason
        return reason, problem

    async def records(self, tenant_id: str = "contoso") -> list[AuditType]:
        return [record.type for record in await self.world.audit.read(tenant_id, after_seq=0, limit=99)]


@pytest.fixture
def queue() -> Queue:
    return Queue()


async def test_a_message_becomes_a_run_of_its_senders_tenant(queue: Queue) -> None:
    run = await queue.submitted(queue.erp.sign(INTENT, NOW))
    assert (run.tenant_id, run.status, run.principal.subject) == ("contoso", RunStatus.ACCEPTED, "sender:erp")
    assert list(queue.world.engine.instances) == [run.run_id]
    assert await queue.records() == [AuditType.RUN_SUBMITTED]
    assert run.traceparent is not None


async def test_delivered_or_sent_twice_it_is_one_run(queue: Queue) -> None:
    message = queue.erp.sign(INTENT, NOW)
    first = await queue.submitted(message)
    again = [await queue.submitted(message), await queue.submitted(queue.erp.sign(INTENT, NOW))]
    assert {run.run_id for run in again} == {first.run_id}
    await queue.world.runs.change("contoso", first.run_id, RunChange(status=RunStatus.SUCCEEDED))
    assert (await queue.submitted(message)).run_id == first.run_id, "a replay after its end is no new run"
    assert (queue.world.engine.starts, await queue.records()) == (1, [AuditType.RUN_SUBMITTED])


async def test_the_same_id_means_the_same_request_and_the_same_tenant(queue: Queue) -> None:
    first = await queue.submitted(queue.erp.sign(INTENT, NOW))
    code, problem = await queue.refused(queue.erp.sign({"intent": "Something else"}, NOW))
    assert (code, problem["status"]) == ("idempotency.mismatch", 422)
    other = await queue.submitted(queue.theirs.sign(INTENT, NOW))
    assert (other.tenant_id, other.run_id != first.run_id) == ("fabrikam", True)


async def test_a_person_with_the_same_key_is_somebody_else(queue: Queue) -> None:
    by_http = await queue.world.submitted(headers={"idempotency-key": "order-1"})
    assert (await queue.submitted(queue.erp.sign(INTENT, NOW))).run_id != by_http


@pytest.mark.parametrize("case", [case for case in BODIES if case.status == 422], ids=lambda case: case.name)
async def test_what_http_refuses_is_refused_here_with_the_same_code_and_places(queue: Queue, case: Case) -> None:
    over_http = await queue.world.post("/api/runs", case.body, headers=case.headers)
    code, problem = await queue.refused(queue.erp.sign(json.loads(case.body), NOW))
    assert code == over_http.code
    assert [error["pointer"] for error in problem.get("errors", [])] == over_http.pointers
    assert not queue.world.engine.instances


async def test_a_plan_that_is_none_is_a_dead_letter_with_every_place(queue: Queue) -> None:
    plan = {**PLAN, "steps": [{"id": "a", "capability": "no.such"}, {"id": "a", "capability": "test.echo"}]}
    code, problem = await queue.refused(queue.erp.sign({"intent": "x", "plan": plan}, NOW))
    assert code == "plan.invalid"
    assert all(error["pointer"].startswith("/plan") for error in problem["errors"])
    assert problem["errors"]


async def test_a_stranger_is_turned_away_without_a_retry_and_leaves_nothing(queue: Queue) -> None:
    code, _ = await queue.refused(Sender("contoso", audience=AUDIENCE).sign(INTENT, NOW))
    assert (code, queue.pauses) == ("message.signature_invalid", [])
    assert await queue.records() == []
    assert not queue.world.engine.instances


async def test_a_genuine_message_that_is_refused_is_on_its_tenants_record(queue: Queue) -> None:
    code, _ = await queue.refused(replace(queue.erp, audience="api://other").sign(INTENT, NOW))
    assert code == "message.audience_wrong"
    (record,) = await queue.world.audit.read("contoso", after_seq=0, limit=9)
    assert (record.type, record.actor) == (AuditType.AUTH_REJECTED, "sender:erp")
    assert record.body == {"code": code, "route": "queue run-requests", "client_app": "sender:erp"}


class Busy:
    """An audit log that is busy for its first ``times`` appends."""

    def __init__(self, inner: Any, times: int) -> None:
        self._inner, self.left = inner, times

    async def append(self, entry: Any) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise OSError("busy")
        return await self._inner.append(entry)


async def test_a_busy_store_is_tried_again_with_growing_pauses(queue: Queue) -> None:
    queue.world.with_deps(audit=Busy(queue.world.audit, 3))
    await queue.submitted(queue.erp.sign(INTENT, NOW))
    assert queue.pauses == [5.0, 5.0, 5.0]  # what audit.unavailable asks for
    assert [pause_s(LivoaError("x", "", status=503), tried) for tried in (1, 2, 3, 4, 5, 9)] == [1, 2, 4, 8, 16, 16]


async def test_a_store_that_stays_busy_gives_the_message_back_and_at_last_names_what_was_in_the_way(
    queue: Queue,
) -> None:
    queue.world.with_deps(audit=Busy(queue.world.audit, 10_000))
    message = queue.erp.sign(INTENT, NOW)
    for delivery in range(1, MAX_DELIVERIES):
        with pytest.raises(NotTakenError):
            await queue.deliver(message, delivery)
        assert len(queue.pauses) == delivery * (MAX_TRIES - 1)
    assert queue.dead.letters == []
    assert await queue.deliver(message, MAX_DELIVERIES) is None
    assert [reason for _, reason, _ in queue.dead.letters] == ["audit.unavailable"]
    assert not queue.world.engine.instances


class Full:
    """Admission that is full for its first ``times`` callers."""

    def __init__(self, times: int) -> None:
        self.left = times

    async def admit(self, tenant_id: str, quota: Quota, door: str = "submissions") -> Admitted:
        self.left -= 1
        return Admitted(self.left < 0, 7)


async def test_a_message_that_the_quota_does_not_let_in_is_put_off_and_keeps_nobody_waiting(queue: Queue) -> None:
    queue.world.with_deps(admission=Full(10_000))
    message = queue.erp.sign(INTENT, NOW)
    for times in range(MAX_POSTPONED):
        received = Received(message, "lock-1", 1, f"m-{times}", times)
        assert await take(received, queue.world.deps, queue.world.engine, pause=queue.pause) is None
    assert (queue.pauses, queue.dead.letters) == ([], [])
    assert queue.dead.later[:5] == [
        (message, f"m-{n}", n + 1, delay) for n, delay in enumerate((7.0, 7.0, 7.0, 8.0, 16.0))
    ]
    assert queue.dead.later[-1][3] == LONGEST_DELAY_S
    received = Received(message, "lock-1", 1, "m", MAX_POSTPONED)
    assert await take(received, queue.world.deps, queue.world.engine, pause=queue.pause) is None
    assert [reason for _, reason, _ in queue.dead.letters] == ["quota.submissions"]


@pytest.mark.parametrize(("told", "counted"), [(3, 3), (-1, 0), (10**9, 0), ("7", 0), (True, 0), (None, 0)])
def test_how_often_a_message_was_put_off_is_anybodys_word_and_bounded(told: Any, counted: int) -> None:
    message = SimpleNamespace(
        get_body=lambda: b"x",
        lock_token="t",
        delivery_count=None,
        message_id=None,
        application_properties={"postponed": told},
    )
    assert received_of(message) == Received(b"x", "t", 1, "", counted)


async def test_a_surprise_is_tried_again_and_says_nothing_of_what_it_was(queue: Queue) -> None:
    class Broken:
        async def create(self, *_: Any) -> None:
            raise ValueError("the password is hunter2")

        async def get(self, *_: Any) -> None:
            return None

    queue.world.with_deps(runs=Broken())
    with pytest.raises(NotTakenError):
        await queue.deliver(queue.erp.sign(INTENT, NOW))
    assert len(queue.pauses) == MAX_TRIES - 1
    assert await queue.deliver(queue.erp.sign(INTENT, NOW), MAX_DELIVERIES) is None
    ((_, reason, description),) = queue.dead.letters
    assert (reason, "hunter2" in description, "incident" in description) == ("internal.unexpected", False, True)


async def test_a_dead_engine_does_not_lose_an_accepted_run(queue: Queue) -> None:
    queue.world.engine.down = True
    run = await queue.submitted(queue.erp.sign(INTENT, NOW))
    assert run.status is RunStatus.ACCEPTED  # the sweep starts it


def test_a_description_fits_whatever_is_wrong() -> None:
    many = [Violation(code="request.type", pointer=f"/{'k' * 200}/{n}", message="no") for n in range(100)]
    text = description_of(LivoaError("request.invalid", "x" * 5_000, status=422, violations=many))
    body = json.loads(text)
    assert len(text) <= 4_096
    assert 0 < len(body["errors"]) < 100
    assert body["errors_left_out"] == 100 - len(body["errors"])
    assert json.loads(description_of(LivoaError("a.b", "c", pointer="/d")))["errors"] == [
        {"code": "a.b", "pointer": "/d", "message": "c"}
    ]
