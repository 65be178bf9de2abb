"""Submitting a run: what is accepted, what is left behind when it is not, and what happens when it is sent twice."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from engine.domain.names import RUN_ORCHESTRATOR
from engine.domain.principal import Role
from engine.domain.run import Run
from engine.domain.status import RunStatus
from engine.ports.run_store import RunChange
from tests.unit.identity.tokens import NOW
from tests.unit.triggers.world import INTENT, ORIGIN, PLAN, World, pieces
from triggers.submission import title_of
from triggers.timer_sweep import sweep

KEY = {"idempotency-key": "order-1"}


async def stored(world: World, run_id: str) -> Run:
    run = await world.runs.get("contoso", run_id)
    assert run is not None
    return run


async def test_a_submission_is_accepted_recorded_and_started(world: World) -> None:
    answer = await world.post("/api/runs", INTENT)

    run = await stored(world, answer.json["run_id"])
    assert (answer.status, run.status, run.created_at) == (202, RunStatus.ACCEPTED, NOW)
    assert answer.headers["location"] == f"/api/runs/{run.run_id}"
    assert answer.headers["retry-after"] == "1"
    assert answer.json == {
        "id": run.run_id,
        "run_id": run.run_id,
        "status": "accepted",
        "statusQueryGetUri": f"{ORIGIN}/api/runs/{run.run_id}/status",
        "terminatePostUri": f"{ORIGIN}/api/runs/{run.run_id}/terminate",
        "suspendPostUri": f"{ORIGIN}/api/runs/{run.run_id}/suspend",
        "resumePostUri": f"{ORIGIN}/api/runs/{run.run_id}/resume",
    }
    quota = {"limit": 20, "lease_ms": 600_000, "max_wait_s": 600.0}
    started = {
        "v": 5,
        "tenant_id": "contoso",
        "run_id": run.run_id,
        "deadline_at": "2026-11-22T12:10:00.000000Z",
        "roll_after": 100,
        "hold_ms": 200,
        "quota": quota,
    }
    assert world.engine.instances == {run.run_id: (RUN_ORCHESTRATOR, started)}
    assert [event.type for event in await world.deps.events.read("contoso", run.run_id, after_seq=0, limit=9)] == [
        "run.accepted"
    ]
    (record,) = await world.audit.read("contoso", after_seq=0, limit=9)
    assert (record.type, record.run_id, record.actor) == ("run.submitted", run.run_id, run.principal.subject)
    request = json.loads(await world.payloads.get("contoso", run.run_id, run.request_ref))
    assert request == INTENT


async def test_nothing_the_caller_wrote_enters_durable_history_or_the_audit_log(world: World) -> None:
    await world.submitted({"intent": "SECRET words", "goals": ["SECRET goal"]})

    history = json.dumps(list(world.engine.instances.values()))
    records = "".join(record.model_dump_json() for record in await world.audit.read("contoso", after_seq=0, limit=9))
    spans = "".join(json.dumps(span.attributes) for span in world.telemetry.spans)
    assert "SECRET" not in history + records + spans


@pytest.mark.parametrize(("asked_s", "given_s"), [(None, 600), (30, 30), (30.5, 30.5), (86_400, 600)])
async def test_the_deadline_is_the_tenants_unless_the_caller_asks_for_less(
    world: World, asked_s: float | None, given_s: float
) -> None:
    constraints = {"constraints": {"deadline_s": asked_s}} if asked_s is not None else {}
    run = await stored(world, await world.submitted(INTENT | constraints))
    assert run.deadline_at == NOW + timedelta(seconds=given_s)


async def test_an_own_plan_is_checked_before_anything_happens(world: World) -> None:
    broken = PLAN | {"steps": [*PLAN["steps"], {"id": "third", "capability": "test.nothing", "inputs": {}}]}
    answer = await world.post("/api/runs", INTENT | {"plan": broken | {"surprise": 1}})

    assert (answer.status, answer.code) == (422, "plan.invalid")
    assert "/plan/surprise" in answer.pointers
    assert any(pointer.startswith("/plan/steps/2") for pointer in answer.pointers)
    assert await world.is_untouched()
    assert (await world.post("/api/runs", INTENT | {"plan": PLAN})).status == 202


async def test_every_bad_field_is_listed_at_once(world: World) -> None:
    body = {
        "goals": "one",
        "surprise": True,
        "context": {"values": [], "documents": [{"name": "", "text": 5, "a/b~c": 1}]},
        "constraints": {"max_steps": "3", "deadline_s": 0, "max_cost_micro_usd": 1.5},
    }
    answer = await world.post("/api/runs", body)

    assert (answer.status, answer.code) == (422, "request.invalid")
    assert sorted(answer.pointers) == sorted(
        [
            "/intent", "/goals", "/surprise", "/context/values", "/context/documents/0/name",
            "/context/documents/0/text", "/context/documents/0/a~1b~0c", "/constraints/max_steps",
            "/constraints/deadline_s", "/constraints/max_cost_micro_usd",
        ]
    )  # fmt: skip
    assert {error["code"] for error in answer.json["errors"]} == {
        "request.missing", "request.unknown_field", "request.type", "request.range",
    }  # fmt: skip
    assert await world.is_untouched()


@pytest.mark.parametrize(
    ("intent", "title"),
    [
        ("  Say \n\t hello\x00 ", "Say hello"),
        ("x" * 120, "x" * 120),
        ("x" * 121, "x" * 119 + "…"),
    ],
)
def test_the_title_is_one_short_line(intent: str, title: str) -> None:
    assert title_of(intent) == title


async def test_a_body_in_pieces_is_read_and_bounded(world: World) -> None:
    assert (await world.post("/api/runs", pieces(json.dumps(INTENT).encode(), 3))).status == 202

    async def endless() -> Any:
        while True:
            yield b" " * 65_536

    assert (await world.post("/api/runs", endless())).code == "http.body_too_large"


# -- sent twice


async def test_the_same_key_and_request_lead_to_the_same_run(world: World) -> None:
    first = await world.post("/api/runs", b'{"intent": "hello", "goals": ["a"]}', headers=KEY)
    world.clock.pass_s(60)
    again = await world.post("/api/runs", b'{"goals":["a"],\n"intent":"hello"}', headers=KEY)

    assert (first.status, again.status) == (202, 202)
    assert again.json["run_id"] == first.json["run_id"]
    assert world.engine.starts == 1
    assert len(await world.audit.read("contoso", after_seq=0, limit=9)) == 1


async def test_the_same_key_with_another_request_is_refused(world: World) -> None:
    await world.submitted(headers=KEY)
    answer = await world.post("/api/runs", {"intent": "something else"}, headers=KEY)

    assert (answer.status, answer.code) == (422, "idempotency.mismatch")
    assert world.engine.starts == 1


async def test_a_key_belongs_to_one_caller_of_one_tenant(world: World) -> None:
    tokens = [world.token(t, u) for t in ("contoso", "fabrikam") for u in ("ana", "bo")]
    runs = {await world.submitted({"intent": f"hello {token}"}, token=token, headers=KEY) for token in tokens}
    assert len(runs) == 4


async def test_submissions_without_a_key_are_runs_of_their_own(world: World) -> None:
    assert await world.submitted() != await world.submitted()


async def test_together_they_still_make_one_run(world: World) -> None:
    answers = await asyncio.gather(*(world.post("/api/runs", INTENT, headers=KEY) for _ in range(8)))

    assert {answer.status for answer in answers} <= {202, 409}
    assert len({answer.json["run_id"] for answer in answers if answer.status == 202}) == 1
    assert {answer.code for answer in answers if answer.status == 409} <= {"idempotency.in_flight"}
    assert world.engine.starts == 1
    assert len(await world.runs.unfinished(9)) == 1


@pytest.mark.parametrize("key", ["", "a" * 101, "a b", "a/b", "ключ", "a,b"])
async def test_a_key_outside_the_alphabet_is_refused(world: World, key: str) -> None:
    answer = await world.post("/api/runs", INTENT, headers={"idempotency-key": key})
    assert (answer.status, answer.code) == (400, "idempotency.key_invalid")
    assert await world.is_untouched()


# -- crashes


async def accepted_but_not_started(world: World, **more: Any) -> str:
    """A run whose request died between accepting and starting it."""
    world.engine.down = True
    run_id = await world.submitted(**more)
    world.engine.down = False
    assert world.engine.instances == {}
    return run_id


async def test_while_the_first_is_in_flight_the_second_is_told_to_wait(world: World) -> None:
    await accepted_but_not_started(world, headers=KEY)
    answer = await world.post("/api/runs", INTENT, headers=KEY)

    assert (answer.status, answer.code) == (409, "idempotency.in_flight")
    assert answer.headers["retry-after"] == "1"
    assert world.engine.starts == 0


async def test_the_same_request_again_starts_what_a_crash_left_behind(world: World) -> None:
    run_id = await accepted_but_not_started(world, headers=KEY)
    world.clock.pass_s(5)

    assert await world.submitted(headers=KEY) == run_id
    assert list(world.engine.instances) == [run_id]


async def test_the_sweep_starts_what_a_crash_left_behind_once(world: World) -> None:
    run_id = await accepted_but_not_started(world)
    assert (await sweep(world.deps, world.engine)).started == 0
    world.clock.pass_s(10)

    assert (await sweep(world.deps, world.engine)).started == 1
    assert (await sweep(world.deps, world.engine)).started == 0
    name, given = world.engine.instances[run_id]
    assert (name, given["deadline_at"]) == (RUN_ORCHESTRATOR, "2026-11-22T12:10:00.000000Z")


async def test_the_sweep_leaves_runs_alone_that_are_under_way(world: World) -> None:
    run_id = await world.submitted()
    await world.runs.change("contoso", run_id, RunChange(status=RunStatus.RUNNING))
    del world.engine.instances[run_id]
    world.clock.pass_s(3_600)

    assert (await sweep(world.deps, world.engine)).started == 0


async def test_a_full_host_costs_one_line_per_sweep_and_no_traceback(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.engine.full = True
    for _ in range(5):
        await world.submitted()
    own = [record.message for record in caplog.records if record.name == "livoa.runs"]
    assert own == ["start failed (RuntimeError), left to the sweep"] * 5
    caplog.clear()
    world.clock.pass_s(20)
    assert (await sweep(world.deps, world.engine)).failed == 5
    assert [record.message for record in caplog.records] == [
        "sweep: 5 runs could not be helped: engine.unavailable (5)"
    ]
    assert all(record.exc_info is None for record in caplog.records)


async def test_one_run_that_cannot_be_helped_does_not_stop_the_sweep(world: World) -> None:
    first, second = await accepted_but_not_started(world), await accepted_but_not_started(world)
    world.clock.pass_s(10)
    start_new = world.engine.start_new

    async def failing(name: str, instance_id: str | None = None, client_input: Any | None = None) -> str:
        if instance_id == first:
            raise OSError
        return await start_new(name, instance_id, client_input)

    world.engine.start_new = failing  # type: ignore[method-assign]  # one instance cannot be started
    report = await sweep(world.deps, world.engine)
    assert (report.started, report.failed) == (1, 1)
    assert list(world.engine.instances) == [second]


async def test_losing_the_race_to_start_a_run_is_as_good_as_winning_it(world: World) -> None:
    run_id = await accepted_but_not_started(world, headers=KEY)
    world.clock.pass_s(10)
    start_new = world.engine.start_new

    async def beaten(name: str, instance_id: str | None = None, client_input: Any | None = None) -> str:
        await start_new(name, instance_id, client_input)
        return await start_new(name, instance_id, client_input)

    world.engine.start_new = beaten  # type: ignore[method-assign]  # somebody else was faster
    assert await world.submitted(headers=KEY) == run_id
    assert world.engine.starts == 1


class BrokenAfter:
    """A port whose method does its work ``calls`` times and then fails, before or after doing it."""

    def __init__(self, inner: Any, method: str, *, after_doing: bool) -> None:
        self._inner, self._method, self._after_doing, self.broken = inner, method, after_doing, True

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._inner, name)
        if name != self._method or not self.broken:
            return real

        async def broken(*arguments: Any, **more: Any) -> Any:
            if self._after_doing:
                await real(*arguments, **more)
            raise OSError("lost")

        return broken


@pytest.mark.parametrize(
    ("port", "method"), [("audit", "append"), ("payloads", "put"), ("runs", "create"), ("runs", "get")]
)
@pytest.mark.parametrize("after_doing", [False, True])
async def test_dying_at_any_effect_the_same_request_ends_in_one_started_run(
    world: World, port: str, method: str, after_doing: bool
) -> None:
    broken = BrokenAfter(getattr(world.deps, port), method, after_doing=after_doing)
    world.with_deps(**{port: broken})
    assert (await world.post("/api/runs", INTENT, headers=KEY)).status >= 500
    broken.broken = False
    world.clock.pass_s(10)

    run_id = await world.submitted(headers=KEY)
    assert list(world.engine.instances) == [run_id]
    assert len(await world.runs.unfinished(9)) == 1
    assert len(await world.audit.read("contoso", after_seq=0, limit=9)) == 1


async def test_what_cannot_be_recorded_is_not_done(world: World) -> None:
    world.with_deps(audit=BrokenAfter(world.audit, "append", after_doing=False))
    answer = await world.post("/api/runs", INTENT)

    assert (answer.status, answer.code) == (503, "audit.unavailable")
    world.with_deps(audit=world.audit)
    assert await world.is_untouched()


async def test_evidence_comes_before_the_run(world: World) -> None:
    world.with_deps(runs=BrokenAfter(world.runs, "create", after_doing=False))
    await world.post("/api/runs", INTENT)
    assert len(await world.audit.read("contoso", after_seq=0, limit=9)) == 1


async def test_a_race_of_two_requests_under_one_key_is_decided_by_the_store(world: World) -> None:
    """The second request looked before the first one had stored its run."""
    await world.submitted(headers=KEY)

    class Blind(BrokenAfter):
        def __getattr__(self, name: str) -> Any:
            real = getattr(self._inner, name)
            if name != "get":
                return real

            async def nothing(*_: Any) -> None:
                return None

            return nothing

    world.with_deps(runs=Blind(world.runs, "get", after_doing=False))
    assert (await world.post("/api/runs", {"intent": "another"}, headers=KEY)).code == "idempotency.mismatch"
    assert (await world.post("/api/runs", INTENT, headers=KEY)).status == 202
    assert world.engine.starts == 1


async def test_a_tenant_that_vanished_gets_nothing_done(world: World) -> None:
    class Nobody:
        async def get(self, tenant_id: str) -> None:
            return None

    world.with_deps(tenants=Nobody())
    assert (await world.post("/api/runs", INTENT)).code == "auth.tenant_unknown"
    assert await world.is_untouched()


async def test_reading_is_not_submitting(world: World) -> None:
    answer = await world.post("/api/runs", INTENT, token=world.token(roles=(Role.RUNS_READ,)))
    assert (answer.status, answer.code) == (403, "auth.role_missing")
    assert await world.is_untouched()


async def test_our_own_span_is_the_runs_trace_and_a_callers_is_only_noted(world: World) -> None:
    theirs = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"
    run = await stored(world, await world.submitted(headers={"traceparent": theirs, "baggage": "user=eve"}))

    (span,) = world.telemetry.spans
    assert run.traceparent == span.traceparent
    assert span.parent is None
    assert span.attributes["app.inbound.traceparent"] == theirs
    assert "eve" not in str(span.attributes)


@pytest.mark.parametrize(
    "theirs",
    ["", "00-" + "0" * 32 + "-bbbbbbbbbbbbbbbb-01", "00-xyz", "01-" + "a" * 32 + "-" + "b" * 16 + "-01", "a\nb"],
)
async def test_a_malformed_trace_is_not_even_noted(world: World, theirs: str) -> None:
    await world.submitted(headers={"traceparent": theirs})
    assert "app.inbound.traceparent" not in world.telemetry.spans[0].attributes
