"""What records commit to, for auditors: only that, only on record, and the chain does not need it."""

from __future__ import annotations

import hashlib
import json

import pytest

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.principal import Role
from engine.evidence import verify
from tests.unit.triggers.test_runs import planned
from tests.unit.triggers.world import World

AUDITOR = (Role.AUDIT_READ,)
PROMPT = b'{"messages": ["why did sales fall?"]}'


async def with_prompt(world: World, data: bytes = PROMPT) -> tuple[str, str]:
    """A planned run with a prompt on record; its id and the prompt's hash."""
    run_id = await planned(world)
    ref = await world.payloads.put("contoso", run_id, data)
    entry = AuditEntry(
        tenant_id="contoso", entry_id=f"{run_id}/plan/1/planner.prompt", type=AuditType.PLANNER_PROMPT,
        at=world.clock.now(), run_id=run_id, actor="tid:ana",
        body={"prompt_sha256": ref.sha256, "prompt_bytes": ref.size_bytes},
    )  # fmt: skip
    await world.audit.append(entry)
    return run_id, ref.sha256


def auditor(world: World) -> str:
    return world.token("contoso", "audra", AUDITOR)


async def test_an_auditor_reads_the_prompt_that_a_record_commits_to_and_that_is_on_record(world: World) -> None:
    run_id, sha256 = await with_prompt(world)
    answer = await world.get(f"/api/runs/{run_id}/audit/content/{sha256}", token=auditor(world))
    assert (answer.status, answer.json["text"]) == (200, PROMPT.decode())
    look = (await world.audit.read("contoso", after_seq=0, limit=99))[-1]
    assert (look.type, look.body["content_sha256"]) == (AuditType.AUDIT_READ, sha256)


async def test_the_request_is_found_by_the_hash_in_the_first_record(world: World) -> None:
    run_id = await planned(world)
    first = (await world.audit.read("contoso", after_seq=0, limit=1))[0]
    sha256 = first.body["request_sha256"]
    answer = await world.get(f"/api/runs/{run_id}/audit/content/{sha256}", token=auditor(world))
    assert answer.status == 200
    assert hashlib.sha256(answer.json["text"].encode()).hexdigest() == sha256
    assert "intent" in json.loads(answer.json["text"])


async def test_bytes_that_are_no_text_come_in_base64(world: World) -> None:
    run_id, sha256 = await with_prompt(world, b"\xff\x00")
    answer = await world.get(f"/api/runs/{run_id}/audit/content/{sha256}", token=auditor(world))
    assert (answer.json["base64"], "text" in answer.json) == ("/wA=", False)


@pytest.mark.parametrize("sha256", ["f" * 64, "none", "F" * 64])
async def test_what_no_record_commits_to_is_not_given_out(world: World, sha256: str) -> None:
    run_id = await planned(world)
    hidden = await world.payloads.put("contoso", run_id, b"never on record")
    for wanted in (sha256, hidden.sha256):
        answer = await world.get(f"/api/runs/{run_id}/audit/content/{wanted}", token=auditor(world))
        assert (answer.status, answer.code) == (404, "audit.no_such_content")


async def test_who_is_no_auditor_sees_no_content(world: World) -> None:
    run_id, sha256 = await with_prompt(world)
    roles = tuple(role for role in Role if role is not Role.AUDIT_READ)
    token = world.token("contoso", "ana", roles)
    answer = await world.get(f"/api/runs/{run_id}/audit/content/{sha256}", token=token)
    assert (answer.status, answer.code) == (403, "auth.role_missing")


async def test_a_look_that_cannot_be_recorded_does_not_happen(world: World) -> None:
    run_id, sha256 = await with_prompt(world)

    async def down(*_: object) -> None:
        raise OSError("down")

    world.audit.append = down  # type: ignore[assignment,method-assign]
    answer = await world.get(f"/api/runs/{run_id}/audit/content/{sha256}", token=auditor(world))
    assert (answer.status, answer.code) == (503, "audit.unavailable")


async def test_erased_content_is_gone_and_the_chain_is_as_sound_as_before(world: World) -> None:
    run_id, sha256 = await with_prompt(world)
    await world.payloads.delete_run("contoso", run_id)
    answer = await world.get(f"/api/runs/{run_id}/audit/content/{sha256}", token=auditor(world))
    assert (answer.status, answer.code) == (404, "payload.not_found")
    assert verify(await world.audit.read("contoso", after_seq=0, limit=99), "contoso") == []
