"""What goes and when: one run on request, everything by age, in an order that survives being stopped anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.adapters.memory import MemoryPayloadObjects, MemoryResultCache, MemoryTenantDirectory
from engine.domain.audit import AuditType
from engine.domain.principal import Role
from engine.domain.tenant import RetentionRules, TenantConfig
from engine.evidence import verify
from engine.evidence.commitments import KeyedAuditLog
from engine.ports.ended_runs import Stage
from engine.ports.result_cache import CachedResult
from tests.support.payloads import keyring, sealed_payloads
from tests.unit.identity.tokens import NOW
from tests.unit.triggers.test_runs import finished, planned
from tests.unit.triggers.world import World, tenant
from triggers.retention import BATCH, retain
from triggers.timer_retention import MAX_BATCHES, retain_all

DAY_S = 86_400


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world whose content is encrypted, as the app's is."""
    made = World()
    made.objects = MemoryPayloadObjects()  # type: ignore[attr-defined]
    made.payloads = sealed_payloads(tmp_path, made.objects, made.keys)  # type: ignore[assignment,attr-defined]
    made.cache = MemoryResultCache()  # type: ignore[attr-defined]
    made.audit = KeyedAuditLog(made.audit, keyring(tmp_path, made.keys))  # type: ignore[assignment]
    made.with_deps(payloads=made.payloads, result_cache=made.cache, audit=made.audit)
    return made


def keep(world: World, **rules: Any) -> None:
    """Give contoso these rules."""
    pages = MemoryTenantDirectory([tenant("contoso", retention=RetentionRules(**rules)), tenant("fabrikam")])
    world.with_deps(tenants=pages)


def eraser(world: World, tenant_id: str = "contoso") -> str:
    return world.token(tenant_id, "erik", (Role.RUNS_ERASE,))


async def erase(world: World, run_id: str, **more: Any) -> Any:
    return await world.send("DELETE", f"/api/runs/{run_id}", **({"token": eraser(world)} | more))


async def erasures(world: World) -> list[tuple[str | None, str, str]]:
    records = await world.audit.read("contoso", after_seq=0, limit=999)
    return [(r.run_id, r.body["what"], r.body["reason"]) for r in records if r.type is AuditType.AUDIT_ERASE]


async def is_sound(world: World) -> bool:
    return verify(await world.audit.read("contoso", after_seq=0, limit=999), "contoso") == []


async def batch(world: World, *, dry_run: bool = False) -> dict[str, Any]:
    body = json.dumps({"dry_run": dry_run}).encode()
    answer = await world.post("/api/retention", body, token=eraser(world))
    assert answer.status == 200, answer.body
    counts = ("runs", "contents", "instances", "ownerless", "failed")
    return {name: answer.json[name] for name in counts if answer.json[name]}


# -- one run, on request


async def test_an_erased_run_is_gone_and_its_evidence_is_as_sound_as_before(world: World) -> None:
    run_id, other = await finished(world), await finished(world)
    answer = await erase(world, run_id)
    assert (answer.status, answer.json) == (200, {"run_id": run_id, "objects": 3})
    assert set(world.objects.objects) == {("contoso", other)}  # type: ignore[attr-defined]
    assert world.engine.purged == [run_id]
    assert await world.runs.get("contoso", run_id) is None
    assert await world.runs.get("contoso", other) is not None
    assert await erasures(world) == [(run_id, "run", "request")]
    assert await is_sound(world)


async def test_what_is_asked_about_it_afterwards_is_answered_clearly(world: World) -> None:
    run_id = await finished(world)
    request = (await world.audit.read("contoso", after_seq=0, limit=1))[0].body["request_sha256"]
    await erase(world, run_id)
    auditor = world.token("contoso", "audra", (Role.AUDIT_READ,))
    for path in ("", "/plan", "/steps", "/events"):
        answer = await world.get(f"/api/runs/{run_id}{path}")
        assert (answer.status, answer.code) == (410, "run.erased")
    assert (await world.get(f"/api/runs/{run_id}", token=world.token(roles=(Role.RUNS_SUBMIT,)))).status == 404
    assert (await world.get(f"/api/runs/{run_id}", token=world.token("fabrikam"))).code == "run.not_found"
    content = await world.get(f"/api/runs/{run_id}/audit/content/{request}", token=auditor)
    assert (content.status, content.code) == (410, "run.erased")
    told = await world.get(f"/api/runs/{run_id}/audit", token=auditor)
    assert [record["type"] for record in told.json["records"]][-2:] == ["audit.erase", "audit.read"]


async def test_erasing_twice_is_erasing_once(world: World) -> None:
    run_id = await finished(world)
    first, second = await erase(world, run_id), await erase(world, run_id)
    assert (first.json["objects"], second.json) == (3, {"run_id": run_id, "objects": 0})
    assert len(await erasures(world)) == 1


@pytest.mark.parametrize("run_id", ["nobody", "..", "a" * 101])
async def test_what_was_never_there_is_not_found(world: World, run_id: str) -> None:
    answer = await erase(world, run_id)
    assert (answer.status, answer.code) == (404, "run.not_found")
    assert await erasures(world) == []


async def test_a_run_that_is_not_over_stays(world: World) -> None:
    run_id = await planned(world)
    answer = await erase(world, run_id)
    assert (answer.status, answer.code) == (409, "run.not_finished")
    assert await erasures(world) == []
    assert len(world.objects.objects["contoso", run_id]) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("rules", [{"legal_hold": True}, {"held_runs": ["RUN"]}])
async def test_a_legal_hold_keeps_a_run_from_everything(world: World, rules: dict[str, Any]) -> None:
    run_id = await finished(world)
    keep(world, **json.loads(json.dumps(rules).replace("RUN", run_id)))
    answer = await erase(world, run_id)
    assert (answer.status, answer.code) == (409, "retention.held")
    world.clock.pass_s(4_000 * DAY_S)
    assert await batch(world) == {}
    assert await world.runs.get("contoso", run_id) is not None
    assert await erasures(world) == []


async def test_who_may_not_erase_does_not(world: World) -> None:
    run_id = await finished(world)
    roles = tuple(role for role in Role if role is not Role.RUNS_ERASE)
    for answer in (
        await erase(world, run_id, token=world.token("contoso", "ana", roles)),
        await world.post("/api/retention", b"{}", token=world.token("contoso", "ana", roles)),
    ):
        assert (answer.status, answer.code) == (403, "auth.role_missing")
    assert (await erase(world, run_id, token=eraser(world, "fabrikam"))).status == 404
    assert await world.runs.get("contoso", run_id) is not None


async def test_nothing_is_erased_that_cannot_be_recorded(world: World) -> None:
    run_id = await finished(world)

    async def down(*_: object) -> None:
        raise OSError("down")

    world.audit.append = down  # type: ignore[method-assign,assignment]
    answer = await erase(world, run_id)
    assert (answer.status, answer.code) == (503, "audit.unavailable")
    assert len(world.objects.objects["contoso", run_id]) == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(("state", "passed_s", "status"), [
    ("Running", 0, 409), ("Pending", 59, 409), ("Running", 61, 200), ("Completed", 0, 200), (None, 0, 200),
])  # fmt: skip
async def test_a_run_whose_instance_is_not_over_yet_goes_a_moment_later(
    world: World, monkeypatch: pytest.MonkeyPatch, state: str | None, passed_s: int, status: int
) -> None:
    run_id = await finished(world)

    async def get_status(instance_id: str) -> Any:
        return SimpleNamespace(instance_id=instance_id if state else None, runtime_status=SimpleNamespace(value=state))

    monkeypatch.setattr(world.engine, "get_status", get_status)
    world.clock.pass_s(passed_s)
    answer = await erase(world, run_id)
    assert answer.status == status
    if status == 409:
        assert (answer.code, answer.headers["retry-after"]) == ("run.winding_up", "2")
        assert await erasures(world) == []


STEPS = ("engine", "cache", "key", "objects", "rows")


@pytest.mark.parametrize("dies_in", STEPS)
async def test_dying_anywhere_leaves_something_that_the_next_one_finishes(
    world: World, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    run_id = await finished(world)
    await world.cache.put("contoso", "a" * 64, CachedResult(run_id, await _request(world, run_id), NOW))  # type: ignore[attr-defined]

    async def killed(*_: object, **__: object) -> None:
        raise OSError("killed")

    place = {
        "engine": (world.engine, "purge_instance_history"),
        "cache": (world.cache, "remove_run"),  # type: ignore[attr-defined]
        "key": (world.keys, "destroy"),
        "objects": (world.objects, "delete_run"),  # type: ignore[attr-defined]
        "rows": (world.deps.ended_runs, "remove"),
    }[dies_in]
    with monkeypatch.context() as patch:
        patch.setattr(*place, killed)
        assert (await erase(world, run_id)).status >= 500
    assert await world.runs.get("contoso", run_id) is not None, "whoever looks must find it"
    if STEPS.index(dies_in) > STEPS.index("key"):
        key = await world.keys.get("contoso", run_id)
        assert key is not None
        assert key.wrapped is None
    assert (await erase(world, run_id)).status == 200
    assert await world.runs.get("contoso", run_id) is None
    assert world.objects.objects == {}  # type: ignore[attr-defined]
    assert await world.cache.get("contoso", "a" * 64) is None  # type: ignore[attr-defined]
    assert len(await erasures(world)) == 1
    assert await is_sound(world)


async def _request(world: World, run_id: str) -> Any:
    run = await world.runs.get("contoso", run_id)
    assert run is not None
    return run.request_ref


async def test_everything_that_was_carried_out_apart_from_its_history_is_forgotten_too(world: World) -> None:
    run_id = await finished(world)
    apart = [f"{run_id}.map-1-0", f"{run_id}.map-1-84", f"{run_id}.call-second"]
    for instance_id in (*apart, f"{run_id}0.map-1-0"):
        world.engine.instances[instance_id] = None
    await erase(world, run_id)
    assert world.engine.purged == [*apart, run_id]


async def test_a_run_with_very_many_instances_is_found_again_until_all_are_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggers.erasure.MAX_INSTANCES", 2)
    run_id = await finished(world)
    for number in range(5):
        world.engine.instances[f"{run_id}.map-1-{number}"] = None
    world.clock.pass_s(31 * DAY_S)
    for _ in range(3):
        assert await batch(world) == {"instances": 1}
    assert await batch(world) == {}
    assert [name for name in world.engine.instances if name.startswith(run_id)] == []
    for number in range(5):
        world.engine.instances[f"{run_id}.map-1-{number}"] = None
    await erase(world, run_id)
    assert [name for name in world.engine.instances if name.startswith(run_id)] == []


# -- by age


async def test_everything_goes_when_its_time_is_over_and_not_before(world: World) -> None:
    run_id = await finished(world)
    keep(world, instance_days=10, content_days=20, run_days=30)
    world.clock.pass_s(9 * DAY_S)
    assert await batch(world) == {}
    world.clock.pass_s(2 * DAY_S)
    assert await batch(world, dry_run=True) == {"instances": 1}
    assert await batch(world) == {"instances": 1}
    assert await batch(world) == {}
    assert world.engine.purged == [run_id]
    world.clock.pass_s(10 * DAY_S)
    assert await batch(world, dry_run=True) == {"contents": 1}
    assert await batch(world) == {"contents": 1}
    assert await batch(world) == {}
    assert world.objects.objects == {}  # type: ignore[attr-defined]
    assert (await world.get(f"/api/runs/{run_id}")).status in (200, 410)
    world.clock.pass_s(10 * DAY_S)
    assert await batch(world, dry_run=True) == {"runs": 1}
    assert await batch(world) == {"runs": 1}
    assert await batch(world) == {}
    assert await world.runs.get("contoso", run_id) is None
    assert await erasures(world) == [(run_id, "content", "age"), (run_id, "run", "age")]
    assert await is_sound(world)


async def test_what_is_old_enough_for_all_of_it_goes_at_once_and_counts_once(world: World) -> None:
    run_id = await finished(world)
    world.clock.pass_s(181 * DAY_S)
    assert await batch(world, dry_run=True) == {"runs": 1}
    assert await world.runs.get("contoso", run_id) is not None
    assert await batch(world) == {"runs": 1}
    assert await erasures(world) == [(run_id, "run", "age")]


async def test_content_of_runs_that_never_came_to_be_goes_with_its_time(world: World) -> None:
    await world.payloads.put("contoso", "never-born", b"{}")
    kept = await planned(world)  # under way for as long as it takes
    world.clock.pass_s(181 * DAY_S)
    assert await batch(world, dry_run=True) == {"ownerless": 1}
    assert await batch(world) == {"ownerless": 1}
    assert await batch(world) == {}
    assert set(world.objects.objects) == {("contoso", kept)}  # type: ignore[attr-defined]
    assert await erasures(world) == [("never-born", "content", "age")]


async def test_batches_are_bounded_and_the_timer_goes_on_for_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggers.retention.BATCH", 3)
    runs = [await finished(world) for _ in range(3 * MAX_BATCHES + 4)]
    world.clock.pass_s(181 * DAY_S)
    contoso = await world.deps.tenants.get("contoso")
    assert contoso is not None
    report = await retain(contoso, world.deps, world.engine, dry_run=False)
    assert (report.runs, report.more) == (3, True)
    reports = await retain_all(world.deps, world.engine)
    assert sum(report.runs for report in reports) == 3 * MAX_BATCHES
    left = await world.deps.ended_runs.ended("contoso", before=world.clock.now(), stage=Stage.GONE, limit=99)
    assert len(left) == len(runs) - 3 - 3 * MAX_BATCHES


async def test_a_hold_that_is_laid_during_a_batch_keeps_what_is_still_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await finished(world), await finished(world)
    world.clock.pass_s(181 * DAY_S)
    contoso = await world.deps.tenants.get("contoso")
    assert contoso is not None
    purge = world.engine.purge_instance_history

    async def held_meanwhile(instance_id: str) -> None:
        await purge(instance_id)
        monkeypatch.setattr(world.deps.tenants, "get", lays_it)

    async def lays_it(tenant_id: str) -> TenantConfig:
        return held

    held = tenant("contoso", retention=RetentionRules(legal_hold=True))
    monkeypatch.setattr(world.engine, "purge_instance_history", held_meanwhile)
    report = await retain(contoso, world.deps, world.engine, dry_run=False)
    assert (report.runs, report.failed) == (1, 0)
    left = [run_id for run_id in (first, second) if await world.runs.get("contoso", run_id) is not None]
    assert len(left) == 1
    assert [run_id for run_id, _, _ in await erasures(world)] == [one for one in (first, second) if one not in left]


async def test_content_goes_with_all_instances_of_a_run_that_has_very_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggers.erasure.MAX_INSTANCES", 2)
    run_id = await finished(world)
    for number in range(5):
        world.engine.instances[f"{run_id}.map-1-{number}"] = None
    keep(world, instance_days=20, content_days=20, run_days=30)
    world.clock.pass_s(21 * DAY_S)
    assert await batch(world) == {"contents": 1}
    assert [name for name in world.engine.instances if name.startswith(run_id)] == []


async def test_what_lies_under_the_id_of_a_preview_goes_with_its_content(world: World) -> None:
    await world.payloads.put("contoso", "preview-1", b"{}")
    removed: list[str] = []
    remove = world.deps.ended_runs.remove

    async def noted(tenant_id: str, run_id: str) -> bool:
        removed.append(run_id)
        return await remove(tenant_id, run_id)

    world.deps.ended_runs.remove = noted  # type: ignore[method-assign]
    world.clock.pass_s(181 * DAY_S)
    assert await batch(world) == {"ownerless": 1}
    assert removed == ["preview-1"]


async def test_a_hold_on_the_oldest_runs_holds_back_no_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triggers.retention.BATCH", 2)
    held = []
    for _ in range(5):
        held.append(await finished(world))
        world.clock.pass_s(1)
    free = await finished(world)
    keep(world, held_runs=held)
    world.clock.pass_s(181 * DAY_S)
    assert await batch(world) == {"runs": 1}
    assert await world.runs.get("contoso", free) is None


async def test_one_run_that_cannot_go_keeps_no_other_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, free = await finished(world), await finished(world)
    world.clock.pass_s(181 * DAY_S)
    purge = world.engine.purge_instance_history

    async def picky(instance_id: str) -> None:
        if instance_id == stuck:
            raise OSError("down")
        await purge(instance_id)

    monkeypatch.setattr(world.engine, "purge_instance_history", picky)
    assert await batch(world) == {"runs": 1, "failed": 1}
    assert await world.runs.get("contoso", free) is None
    monkeypatch.undo()
    assert await batch(world) == {"runs": 1}
    assert len(await erasures(world)) == 2


async def test_one_tenant_that_fails_keeps_no_other_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await finished(world)
    world.clock.pass_s(181 * DAY_S)
    read = world.audit.read

    async def picky(tenant_id: str, **more: Any) -> Any:
        if tenant_id == "fabrikam":
            raise OSError("down")
        return await read(tenant_id, **more)

    monkeypatch.setattr(world.audit, "read", picky)
    await retain_all(world.deps, world.engine)
    assert await world.runs.get("contoso", run_id) is None


async def test_audit_records_that_are_older_than_they_should_be_are_reported_and_stay(world: World) -> None:
    await finished(world)
    keep(world, audit_days=184)
    before = await world.audit.read("contoso", after_seq=0, limit=99)
    for days, reported in ((100, False), (100, True)):
        world.clock.pass_s(days * DAY_S)
        answer = await world.post("/api/retention", b'{"dry_run": true}', token=eraser(world))
        assert ("audit_older_since" in answer.json) == reported
    assert (await world.audit.read("contoso", after_seq=0, limit=99))[: len(before)] == before


@pytest.mark.parametrize("days", [0, 183, -1])
def test_no_tenant_keeps_audit_records_for_less_than_half_a_year(days: int) -> None:
    with pytest.raises(ValueError):
        RetentionRules(audit_days=days)


@pytest.mark.parametrize("body", [b"[]", b'{"dry_run": 1}', b'{"all": true}', b"{"])
async def test_a_request_that_is_none_changes_nothing(world: World, body: bytes) -> None:
    await finished(world)
    world.clock.pass_s(181 * DAY_S)
    answer = await world.post("/api/retention", body, token=eraser(world))
    assert answer.status in (400, 422)
    assert await erasures(world) == []


def test_a_batch_is_no_more_than_one_look_of_a_store() -> None:
    rules: Iterator[int] = iter([RetentionRules.model_fields["held_runs"].metadata[0].max_length])
    assert BATCH + next(rules) <= 1_000
