"""Links to outputs: for one object of one run and some minutes, on record, and nothing else opens with them."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.admission import BlockAdmission
from engine.adapters.memory import MemoryPayloadObjects, MemoryPermitLedger
from engine.adapters.sealed import SealedPayloadLinks, SealedPayloadStore
from engine.domain.audit import AuditType
from engine.domain.principal import Role
from tests.support.payloads import keyring
from tests.unit.triggers.test_runs import planned, put_step
from tests.unit.triggers.world import Answered, World
from triggers.http_links import MAX_USES

OUTPUT = b'{"rows": [1, 2, 3]}'


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world whose content is encrypted, as the app's is."""
    made = World()
    ring = keyring(tmp_path, made.keys)
    made.payloads = SealedPayloadStore(MemoryPayloadObjects(), ring)  # type: ignore[assignment]
    links = SealedPayloadLinks(made.payloads, ring, made.clock)
    made.with_deps(payloads=made.payloads, payload_links=links)
    return made


async def linked(world: World, data: bytes = OUTPUT, **more: Any) -> tuple[str, str]:
    """A run with an output; its id and a link to that."""
    run_id = await planned(world)
    await put_step(world, run_id, "first", data, **more)
    answer = await world.post(f"/api/runs/{run_id}/links", {"step_id": "first"})
    assert answer.status == 201, answer.body
    return run_id, str(answer.json["url"]).removeprefix("http://livoa.test")


async def follow(world: World, target: str) -> Answered:
    return await world.get(target, token=None)


async def records(world: World, kind: AuditType) -> list[Any]:
    return [r for r in await world.audit.read("contoso", after_seq=0, limit=999) if r.type is kind]


async def test_a_link_opens_the_output_without_a_token_as_a_download(world: World) -> None:
    run_id, target = await linked(world)
    answer = await follow(world, target)
    assert (answer.status, answer.body) == (200, OUTPUT)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="{run_id}-')
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_making_and_every_use_are_on_record_by_id_and_never_by_token(world: World) -> None:
    run_id, target = await linked(world)
    for _ in range(3):
        assert (await follow(world, target)).status == 200
    (made,), read = await records(world, AuditType.CONTENT_LINKED), await records(world, AuditType.CONTENT_READ)
    assert [one.body["number"] for one in read] == [1, 2, 3]
    assert {one.body["link"] for one in read} == {made.body["link"]}
    assert {one.actor for one in read} == {f"link:{made.body['link']}"}
    assert (made.run_id, made.body["step"]) == (run_id, "first")
    token = target.rpartition("/")[2]
    assert token not in str(await world.audit.read("contoso", after_seq=0, limit=999))


async def test_a_link_is_used_up_and_its_uses_are_counted_one_by_one(world: World) -> None:
    _, target = await linked(world)
    answers = await asyncio.gather(*(follow(world, target) for _ in range(MAX_USES + 5)))
    assert sorted(answer.status for answer in answers) == [200] * MAX_USES + [410] * 5
    assert {(answer.status, answer.code) for answer in answers} == {(200, None), (410, "link.used_up")}
    read = await records(world, AuditType.CONTENT_READ)
    assert [one.body["number"] for one in read] == list(range(1, MAX_USES + 1))
    assert (await follow(world, target)).code == "link.used_up"
    _, another = await linked(world)
    assert (await follow(world, another)).status == 200


async def test_uses_at_the_same_moment_have_a_number_each(world: World) -> None:
    class Slow:
        """Everybody looks before anybody writes, as processes do."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.audit, name)

        async def find(self, tenant_id: str, entry_id: str) -> Any:
            found = await world.audit.find(tenant_id, entry_id)
            await asyncio.sleep(0)
            return found

    _, target = await linked(world)
    world.with_deps(audit=Slow())
    answers = await asyncio.gather(*(follow(world, target) for _ in range(MAX_USES + 5)))
    assert sorted(answer.status for answer in answers) == [200] * MAX_USES + [410] * 5
    read = await records(world, AuditType.CONTENT_READ)
    assert sorted(one.body["number"] for one in read) == list(range(1, MAX_USES + 1))
    assert len({one.body["use"] for one in read}) == MAX_USES


async def test_links_have_permits_of_their_own_and_are_refused_without_one(world: World) -> None:
    run_id, _ = await linked(world)
    world.with_deps(admission=BlockAdmission(MemoryPermitLedger(world.clock), world.clock))
    body = {"step_id": "first"}
    answers = [await world.post(f"/api/runs/{run_id}/links", body) for _ in range(25)]
    statuses = [answer.status for answer in answers]
    assert statuses.count(201) == 20, "the burst of the tenant"
    assert (answers[-1].status, answers[-1].code) == (429, "quota.links")
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert len(await records(world, AuditType.CONTENT_LINKED)) == 1 + 20
    (refused,) = await records(world, AuditType.QUOTA_REFUSED)
    assert (refused.body["code"], refused.body["route"]) == ("quota.links", "POST runs/{run_id}/links")
    await world.submitted()  # a flood of links keeps no run out


async def test_what_an_agent_calls_html_is_never_shown_as_such(world: World) -> None:
    _, target = await linked(world, b"<script>", media_type="text/html")
    answer = await follow(world, target)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_item_of_a_map_has_a_link_of_its_own(world: World) -> None:
    run_id = await planned(world)
    await put_step(world, run_id, "first", b'{"item": 4}', item=4)
    answer = await world.post(f"/api/runs/{run_id}/links", {"step_id": "first", "item": 4})
    target = str(answer.json["url"]).removeprefix("http://livoa.test")
    assert (await follow(world, target)).json == {"item": 4}
    assert (await world.post(f"/api/runs/{run_id}/links", {"step_id": "first"})).code == "step.no_output"
    assert (await world.post(f"/api/runs/{run_id}/links", {"step_id": "nosuch"})).code == "step.unknown"


@pytest.mark.parametrize(
    ("valid_s", "passed_s", "status"), [(10, 9, 200), (10, 10, 410), (900, 899, 200), (900, 901, 410)]
)
async def test_its_time_is_over_when_it_says_so(world: World, valid_s: int, passed_s: int, status: int) -> None:
    run_id = await planned(world)
    await put_step(world, run_id, "first", OUTPUT)
    made = await world.post(f"/api/runs/{run_id}/links", {"step_id": "first", "valid_s": valid_s})
    world.clock.pass_s(passed_s)
    answer = await follow(world, str(made.json["url"]).removeprefix("http://livoa.test"))
    assert answer.status == status
    assert answer.code == (None if status == 200 else "link.expired")


async def test_every_bit_of_a_link_counts(world: World) -> None:
    _, target = await linked(world)
    path, _, token = target.rpartition("/")
    raw = base64.urlsafe_b64decode(token)
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        answer = await follow(world, f"{path}/{base64.urlsafe_b64encode(bytes(changed)).decode()}")
        assert (answer.status, answer.code) == (404, "link.invalid"), place
    assert await records(world, AuditType.CONTENT_READ) == []


async def test_a_link_is_for_its_tenant_and_its_run_alone(world: World) -> None:
    run_id, target = await linked(world)
    other, _ = await linked(world)
    token = target.rpartition("/")[2]
    for place in (f"fabrikam/{run_id}", f"contoso/{other}", "contoso/nobody", f"nobody/{run_id}", "../.."):
        answer = await world.send("GET", f"/api/links/{place}/{token}", token=None)
        assert (answer.status, answer.code) == (404, "link.invalid")


@given(st.text("ABCabc019-_.=~ü", max_size=120))
def test_what_is_no_link_leads_nowhere(token: str) -> None:
    import asyncio

    from engine.domain.errors import NotFoundError

    with pytest.raises(NotFoundError) as caught:
        asyncio.run(SealedPayloadLinks(None, None, None).follow("contoso", "run-1", token))  # type: ignore[arg-type]
    assert caught.value.code == "link.invalid"


async def test_links_die_with_the_content(world: World) -> None:
    run_id, target = await linked(world)
    await world.payloads.delete_run("contoso", run_id)
    answer = await follow(world, target)
    assert (answer.status, answer.code) == (404, "link.invalid")
    made = await world.post(f"/api/runs/{run_id}/links", {"step_id": "first"})
    assert (made.status, made.code) == (410, "payload.erased")


async def test_links_of_a_tenant_that_was_suspended_lead_nowhere(world: World) -> None:
    _, target = await linked(world)
    tenants = world.deps.tenants

    class Suspended:
        async def get(self, tenant_id: str) -> Any:
            found = await tenants.get(tenant_id)
            return found.model_copy(update={"status": "suspended"}) if found is not None else None

    world.with_deps(tenants=Suspended())
    assert (await follow(world, target)).code == "link.invalid"


@pytest.mark.parametrize("step", ["makes", "follows"])
async def test_what_cannot_be_recorded_is_neither_made_nor_shown(world: World, step: str) -> None:
    run_id, target = await linked(world)

    async def down(*_: object) -> None:
        raise OSError("down")

    world.audit.append = down  # type: ignore[assignment,method-assign]
    made = world.post(f"/api/runs/{run_id}/links", {"step_id": "first"})
    answer = await (made if step == "makes" else follow(world, target))
    if step == "follows":
        made.close()
    assert (answer.status, answer.code) == (503, "audit.unavailable")
    assert OUTPUT not in answer.body


async def test_only_who_may_read_the_run_gets_a_link(world: World) -> None:
    run_id, _ = await linked(world)
    for token, code in (
        (world.token("contoso", "bo", (Role.RUNS_SUBMIT,)), "run.not_found"),
        (world.token("fabrikam"), "run.not_found"),
        (world.token("contoso", "audra", (Role.AUDIT_READ, Role.RUNS_ERASE)), "auth.role_missing"),
    ):
        answer = await world.post(f"/api/runs/{run_id}/links", {"step_id": "first"}, token=token)
        assert answer.code == code


@pytest.mark.parametrize(
    "body",
    [
        {}, {"step_id": "first", "valid_s": 901}, {"step_id": "first", "valid_s": 9}, {"step_id": "a b"},
        {"step_id": "first", "valid_s": "300"}, {"step_id": "first", "item": -1}, {"step_id": "first", "url": "x"},
    ],
)  # fmt: skip
async def test_a_request_that_is_none_is_refused_with_the_place(world: World, body: dict[str, Any]) -> None:
    run_id, _ = await linked(world)
    answer = await world.post(f"/api/runs/{run_id}/links", body)
    assert (answer.status, answer.code) == (422, "request.invalid")
    assert answer.pointers
