"""Who may answer for a step, over every store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from engine.adapters.memory import FixedClock
from engine.adapters.sql import Database
from engine.domain.bus import Assignment, AssignmentStatus
from engine.ports.assignments import Finished, Leased, NotLeased
from tests.contract.stores.builders import NOON, assignment, ref
from tests.contract.stores.conftest import CosmosWorld, Stores

KEY = "run-1/spend"
OF = ("contoso", "run-1", KEY)
NONCE, OTHER = "n" * 43, "o" * 43


def later(seconds: float = 0.0) -> Any:
    return NOON + timedelta(seconds=seconds)


async def leased(stores: Stores, token: int = 1, nonce: str = NONCE, seconds: float = 0.0) -> Leased | NotLeased:
    return await stores.assignments.lease(*OF, token, worker="w1", nonce=nonce, now=later(seconds))


async def finished(stores: Stores, token: int = 1, nonce: str = NONCE, answer: str = "yes") -> Finished | NotLeased:
    return await stores.assignments.finish(*OF, token, nonce=nonce, response_ref=ref(answer), now=later(5))


async def row(stores: Stores) -> Assignment:
    found = await stores.assignments.get(*OF)
    assert found is not None
    return found


async def test_a_step_is_assigned_once_for_each_attempt(stores: Stores) -> None:
    assert await stores.assignments.get(*OF) is None
    first = await stores.assignments.assign(assignment())
    assert (first, first.token, first.status) == (assignment(), 1, AssignmentStatus.QUEUED)
    await leased(stores)
    again = await stores.assignments.assign(assignment(waiter="another"))
    assert (again.status, again.waiter) == (AssignmentStatus.LEASED, "run-1")
    second = await stores.assignments.assign(assignment(attempt=2))
    assert (second.token, second.status, second.worker) == (2, AssignmentStatus.QUEUED, None)
    assert await stores.assignments.assign(assignment()) == second == await row(stores)
    assert second.event != first.event


async def test_one_of_many_workers_gets_it(stores: Stores) -> None:
    await stores.assignments.assign(assignment())
    nonces = [f"{number:043}" for number in range(8)]
    answers = await asyncio.gather(*(leased(stores, nonce=nonce) for nonce in nonces))
    assert [type(answer) for answer in answers].count(Leased) == 1
    assert {answer.reason for answer in answers if isinstance(answer, NotLeased)} == {"held"}
    (holder,) = [nonce for nonce, answer in zip(nonces, answers, strict=True) if isinstance(answer, Leased)]
    assert isinstance(await leased(stores, nonce=holder), Leased)
    assert "n" * 20 not in (await row(stores)).model_dump_json()


async def test_only_who_holds_the_lease_of_the_latest_attempt_answers(stores: Stores) -> None:
    assert await leased(stores) == await finished(stores) == NotLeased("unknown")
    await stores.assignments.assign(assignment())
    assert await finished(stores) == NotLeased("unknown")
    await leased(stores)
    assert await finished(stores, nonce=OTHER) == NotLeased("unknown")
    assert await finished(stores, token=2) == NotLeased("unknown")
    await stores.assignments.assign(assignment(attempt=2))
    assert await finished(stores) == await leased(stores) == NotLeased("superseded")
    await leased(stores, 2, OTHER)
    done = await finished(stores, 2, OTHER)
    assert isinstance(done, Finished)
    assert (done.new, done.assignment.response_ref, done.assignment.ended_at) == (True, ref("yes"), later(5))
    assert done.assignment == await row(stores)


async def test_an_answer_is_stored_once(stores: Stores) -> None:
    await stores.assignments.assign(assignment())
    await leased(stores)
    first = await finished(stores)
    assert await finished(stores) == Finished(await row(stores), new=False)
    assert await finished(stores, answer="no") == await finished(stores, nonce=OTHER) == NotLeased("ended")
    assert await leased(stores) == NotLeased("ended")
    assert await stores.assignments.void(*OF, 1, now=later(9), lapsed_only=False) is None
    assert isinstance(first, Finished)
    assert await row(stores) == first.assignment


async def test_a_lease_is_kept_by_its_heartbeat(stores: Stores) -> None:
    await stores.assignments.assign(assignment())

    async def beat(seconds: float, nonce: str = NONCE) -> Leased | NotLeased:
        return await stores.assignments.heartbeat(*OF, 1, nonce=nonce, now=later(seconds))

    assert await beat(0) == NotLeased("unknown")
    await leased(stores)
    assert await beat(1, OTHER) == NotLeased("unknown")
    for seconds in (20, 10, 79, 200):
        assert isinstance(await beat(seconds), Leased)
    assert (await row(stores)).lease_until_at == later(260)
    assert await stores.assignments.void(*OF, 1, now=later(259), lapsed_only=True) is None
    void = await stores.assignments.void(*OF, 1, now=later(260), lapsed_only=True)
    assert void is not None
    assert (void.status, void.ended_at, void.void_reason) == (AssignmentStatus.VOID, later(260), "lapsed")
    assert await beat(261) == await finished(stores) == await leased(stores) == NotLeased("lapsed")
    assert await stores.assignments.void(*OF, 1, now=later(300), lapsed_only=True) == void
    # Somebody wants nothing of it done any more: that is the last word.
    revoked = await stores.assignments.void(*OF, 1, now=later(301), lapsed_only=False)
    assert revoked == await row(stores) == void.model_copy(update={"void_reason": "revoked"})
    assert await beat(302) == NotLeased("ended")
    assert await stores.assignments.void(*OF, 1, now=later(303), lapsed_only=True) == revoked


async def test_a_heartbeat_after_the_clock_was_set_back_does_not_leave_the_lease_where_it_was(stores: Stores) -> None:
    """Whoever has it may die in the next moment, and would be waited for as long as the clock was set back."""
    await stores.assignments.assign(assignment())
    await leased(stores)
    assert isinstance(await stores.assignments.heartbeat(*OF, 1, nonce=NONCE, now=later(-3_600)), Leased)
    assert (await row(stores)).lease_until_at == later(-3_600 + 60)


async def test_a_lease_from_before_the_clock_was_set_back_lapses_a_length_after_somebody_looks(stores: Stores) -> None:
    """Whoever had it is gone and renews nothing: the step would wait for as long as the clock was set back."""
    await stores.assignments.assign(assignment())
    await leased(stores)

    async def void(seconds: float) -> Assignment | None:
        return await stores.assignments.void(*OF, 1, now=later(seconds), lapsed_only=True)

    assert await void(-60) is None
    assert (await row(stores)).lease_until_at == later(60), "clocks of two machines may differ by a little"
    assert await void(-3_600) is None
    assert await void(-3_541) is None
    gone = await void(-3_540)
    assert gone is not None
    assert gone.void_reason == "lapsed"


async def test_what_nobody_takes_lapses_at_its_deadline(stores: Stores) -> None:
    await stores.assignments.assign(assignment())
    assert await leased(stores, seconds=3600) == NotLeased("ended")
    assert await stores.assignments.void(*OF, 1, now=later(3599), lapsed_only=True) is None
    assert await stores.assignments.void(*OF, 2, now=later(3600), lapsed_only=True) is None
    assert await stores.assignments.void(*OF, 1, now=later(3600), lapsed_only=True) == await row(stores)
    assert (await row(stores)).void_reason == "revoked"  # the agent's time is over too


async def test_what_its_holder_gives_back_is_anybodys_and_the_holders_answer_counts_no_more(stores: Stores) -> None:
    await stores.assignments.assign(assignment())
    assert await stores.assignments.release(*OF, 1, nonce=NONCE) is None, "nobody holds it"
    await stores.assignments.sent(*OF, 1, later(0))
    await stores.assignments.lease(*OF, 1, worker="w", nonce=NONCE, now=later(1))
    assert await stores.assignments.release(*OF, 1, nonce="o" * 43) is None, "not one's own"
    assert await stores.assignments.release(*OF, 2, nonce=NONCE) is None
    back = await stores.assignments.release(*OF, 1, nonce=NONCE)
    assert back is not None
    assert (back.status, back.token, back.sent_at, back.sends) == (AssignmentStatus.QUEUED, 1, None, 1)
    assert await stores.assignments.release(*OF, 1, nonce=NONCE) is None
    late = await stores.assignments.finish(*OF, 1, nonce=NONCE, response_ref=ref(), now=later(2))
    assert late == NotLeased("unknown")
    taken = await stores.assignments.lease(*OF, 1, worker="x", nonce="o" * 43, now=later(3))
    assert isinstance(taken, Leased)
    done = await stores.assignments.finish(*OF, 1, nonce="o" * 43, response_ref=ref(), now=later(4))
    assert isinstance(done, Finished)
    assert await stores.assignments.release(*OF, 1, nonce="o" * 43) is None


async def test_the_end_of_a_run_ends_what_is_open(stores: Stores) -> None:
    for key in ("a", "b", "c"):
        await stores.assignments.assign(assignment(key))
    await stores.assignments.assign(assignment("d", run_id="run-2"))
    await stores.assignments.lease("contoso", "run-1", "a", 1, worker="w", nonce=NONCE, now=later())
    await stores.assignments.lease("contoso", "run-1", "b", 1, worker="w", nonce=NONCE, now=later())
    await stores.assignments.finish("contoso", "run-1", "b", 1, nonce=NONCE, response_ref=ref(), now=later())
    ended = await stores.assignments.void_run("contoso", "run-1", later(1))
    assert sorted(one.key for one in ended) == ["a", "c"]
    assert await stores.assignments.void_run("contoso", "run-1", later(2)) == ()
    other = await stores.assignments.get("contoso", "run-2", "d")
    assert other is not None
    assert other.status is AssignmentStatus.QUEUED


async def test_the_sweep_sees_what_is_late_of_any_tenant_oldest_first(stores: Stores) -> None:
    made = {"sent": 0, "unsent": 3, "leased": 1, "lapsed": 2, "late": 5, "done": 4}
    for key, second in made.items():
        deadline = {"deadline_at": later(30)} if key == "late" else {}
        tenant = "fabrikam" if key == "lapsed" else "contoso"
        await stores.assignments.assign(assignment(key, tenant_id=tenant, created_at=later(second), **deadline))
        if key != "unsent":
            await stores.assignments.sent(tenant, "run-1", key, 1, later(40))
    for key, tenant, second in (("leased", "contoso", 30), ("lapsed", "fabrikam", 6), ("done", "contoso", 6)):
        await stores.assignments.lease(tenant, "run-1", key, 1, worker="w", nonce=NONCE, now=later(second))
    await stores.assignments.finish("contoso", "run-1", "done", 1, nonce=NONCE, response_ref=ref(), now=later(7))

    async def seen(now: float, unsent_since: float, limit: int = 10) -> list[str]:
        found = await stores.assignments.overdue(later(now), unsent_since=later(unsent_since), limit=limit)
        return [one.key for one in found]

    assert await seen(29, 3) == []
    assert await seen(30, 4) == ["unsent", "late"]
    assert await seen(66, 340) == ["lapsed", "unsent", "late"]
    assert await seen(66, 341) == ["sent", "lapsed", "unsent", "late"]
    assert await seen(66, 341, limit=2) == ["sent", "lapsed"]
    await stores.assignments.sent("contoso", "run-1", "sent", 1, later(340))
    assert await seen(66, 940) == ["lapsed", "unsent", "late"], "patience grows with each send"
    assert await seen(66, 941) == ["sent", "lapsed", "unsent", "late"]


async def test_the_sweep_sees_what_ended_lately(stores: Stores) -> None:
    for number, key in enumerate(("a", "b", "c")):
        await stores.assignments.assign(assignment(key))
        await stores.assignments.void("contoso", "run-1", key, 1, now=later(3 - number), lapsed_only=False)
    await stores.assignments.assign(assignment("open"))
    found = await stores.assignments.ended_since(later(2), 10)
    assert [one.key for one in found] == ["b", "a"]
    assert [one.key for one in await stores.assignments.ended_since(later(0), 1)] == ["c"]


async def test_a_run_is_forgotten_with_its_assignments(stores: Stores) -> None:
    for key, run_id in (("a", "run-1"), ("b", "run-1"), ("a", "run-2")):
        await stores.assignments.assign(assignment(key, run_id=run_id))
    assert await stores.assignments.remove_run("contoso", "run-1") == 2
    assert await stores.assignments.remove_run("contoso", "run-1") == 0
    assert await stores.assignments.get("contoso", "run-1", "a") is None
    assert await stores.assignments.get("contoso", "run-2", "a") is not None


async def test_sends_are_counted_for_the_latest_attempt(stores: Stores) -> None:
    await stores.assignments.assign(assignment())
    await stores.assignments.sent(*OF, 2, later(1))
    await stores.assignments.sent(*OF, 1, later(2))
    assert ((await row(stores)).sends, (await row(stores)).sent_at) == (1, later(2))


async def test_a_database_of_the_version_before_gets_the_table(sql_url: str, open_sql: Callable[[], Stores]) -> None:
    old = Database(sql_url, FixedClock())
    for statement in (
        "DROP TABLE assignments",
        "DELETE FROM schema_version",
        "INSERT INTO schema_version VALUES (7, 'then')",
    ):
        await old.write(lambda connection, statement=statement: connection.execute(text(statement)))
    await old.dispose()
    stores = open_sql()
    assert await stores.assignments.assign(assignment()) == await row(stores)


async def test_a_worker_a_version_behind_can_read_what_it_is_assigned(
    open_sql: Callable[[], Stores], cosmos: CosmosWorld
) -> None:
    """It refuses fields that it does not know, so one that says nothing is not there."""
    sql, documents = open_sql(), cosmos.open()
    assert sql.database is not None
    for stores in (sql, documents):
        await stores.assignments.assign(assignment())
        assert isinstance(await leased(stores), Leased)
    query = text("SELECT document FROM assignments")
    stored = [await sql.database.read(lambda connection: connection.execute(query).scalar())]
    runs = cosmos.fake.account.container("livoa", "runs").documents.values()
    stored += [document["document"] for document in runs if document["kind"] == "assignment"]
    assert len(stored) == 2
    for document in stored:
        assert "lease_until_at" in json.loads(document)
        assert "void_reason" not in json.loads(document)
