"""What is on record is what was done: an id that is taken by something else never passes for the fact itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from engine.domain.audit import AuditEntry, AuditRecord, AuditType
from engine.domain.checkpoint import Checkpoint
from engine.domain.execute import ExecuteRequest, ExecuteResponse, ExecuteSucceeded
from engine.domain.outcomes import Failed, Succeeded
from engine.domain.run import StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.evidence import canonical_sha256
from engine.evidence.commitments import KeyedAuditLog
from engine.evidence.on_record import put_on_record
from engine.evidence.watched import WatchedAuditLog
from engine.ports.checkpoints import NoCheckpoints
from tests.support.payloads import keyring
from tests.support.world import START, World, plan_of, step


class KilledError(BaseException):
    """The process ends here."""


def entry(world: World, entry_id: str, kind: AuditType, body: dict[str, Any]) -> AuditEntry:
    return AuditEntry(
        tenant_id="contoso", entry_id=entry_id, type=kind, at=world.clock.now(), run_id="run-1", actor="mallory", body=body
    )  # fmt: skip


async def records(world: World, kind: AuditType) -> list[AuditRecord]:
    return [record for record in await world.deps.audit.read("contoso", after_seq=0, limit=999) if record.type is kind]


async def test_an_intent_whose_id_is_taken_by_another_fact_is_recorded_as_it_is_before_the_call() -> None:
    world = World()
    await world.submit(plan_of(step("tell", "mail.send", n=7)))
    squatted = entry(
        world, "run-1/tell#1/dispatch.intended", AuditType.DISPATCH_INTENDED, {"capability": "calc.double"}
    )
    await world.deps.audit.append(squatted)
    assert await world.perform("tell") == Succeeded()
    found = await records(world, AuditType.DISPATCH_INTENDED)
    (made,) = world.invoker.calls
    named = canonical_sha256({"capability": "mail.send", "inputs": made.inputs})
    assert [record.body.get("inputs_sha256") for record in found] == [None, named]
    await world.finish(RunStatus.SUCCEEDED)
    assert await records(world, AuditType.RESULT_UNKNOWN) == []


async def test_records_that_commit_by_keyed_hashes_are_held_against_what_they_commit_to(tmp_path: Path) -> None:
    world = World()
    log = KeyedAuditLog(world.deps.audit, keyring(tmp_path))
    world.deps = dataclasses.replace(world.deps, audit=WatchedAuditLog(log, NoCheckpoints()))
    await world.submit(plan_of(step("tell", "mail.send", n=7)))
    assert await world.perform("tell") == Succeeded()
    (intent,) = await records(world, AuditType.DISPATCH_INTENDED)
    assert "committed_with" in intent.body
    other = intent.body | {"inputs_sha256": "0" * 64}
    changed = entry(world, intent.entry_id, intent.type, other).model_copy(update={"actor": intent.actor})
    assert (await put_on_record(changed, world.deps.audit)).seq != intent.seq, "another fact"
    assert (await put_on_record(changed, world.deps.audit)).seq != intent.seq
    assert len(await records(world, AuditType.DISPATCH_INTENDED)) == 2


async def test_no_call_is_made_when_its_intent_cannot_be_put_on_record_under_any_id() -> None:
    world = World()
    await world.submit(plan_of(step("tell", "mail.send")))
    appended = world.deps.audit.append

    async def always_another(wanted: AuditEntry) -> AuditRecord:
        if wanted.type is AuditType.DISPATCH_INTENDED:
            wanted = wanted.model_copy(update={"actor": "mallory"})
        return await appended(wanted)

    world.deps.audit.append = always_another  # type: ignore[method-assign]
    assert await world.perform("tell") == Failed(code="audit.unavailable", retryable=True)
    assert world.invoker.calls == []


class Checkpoints(NoCheckpoints):
    """Makes one that ends at record ``size``."""

    size = 1

    async def make(self, tenant_id: str) -> Checkpoint | None:
        digest = "0" * 64
        fields = {"number": 1, "size": self.size, "head": digest, "root": digest, "peaks": (digest,), "prev": digest}
        return Checkpoint(tenant_id=tenant_id, at=START, **fields)


@pytest.mark.parametrize(("size", "calls"), [(1, 0), (99, 1)])
async def test_an_external_call_waits_for_a_checkpoint_that_reaches_its_intent(size: int, calls: int) -> None:
    world, checkpoints = World(), Checkpoints()
    checkpoints.size = size
    world.deps = dataclasses.replace(world.deps, checkpoints=checkpoints)
    await world.submit(plan_of(step("tell", "mail.send")))
    outcome = await world.perform("tell")
    assert outcome == (Succeeded() if calls else Failed(code="audit.unavailable", retryable=True))
    assert len(world.invoker.calls) == calls


@pytest.mark.parametrize(("environment", "calls"), [("local", 1), ("azure", 0)])
async def test_where_nobody_makes_checkpoints_only_one_machine_calls_what_is_beyond_recall(
    environment: str, calls: int
) -> None:
    world = World()
    settings = dataclasses.replace(world.deps.settings, environment=environment)
    world.deps = dataclasses.replace(world.deps, settings=settings)
    await world.submit(plan_of(step("tell", "mail.send"), step("look", "calc.double")))
    await world.perform("tell")
    assert await world.perform("look") == Succeeded()
    assert [call.capability for call in world.invoker.calls].count("mail.send") == calls


async def test_the_output_that_stands_is_on_record_when_a_second_delivery_was_answered_otherwise() -> None:
    world = World()
    await world.submit(plan_of(step("look", "calc.double", n=1), uses=["look"]))
    world.invoker.behaviours["calc.double"] = _answering(1)
    put_step = world.runs.put_step

    async def die(record: StepRecord, *rest: Any, **more: Any) -> bool:
        if record.status is StepStatus.SUCCEEDED:
            raise KilledError
        return await put_step(record, *rest, **more)

    world.runs.put_step = die  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        await world.perform("look")
    world.runs.put_step = put_step  # type: ignore[method-assign]
    world.invoker.effects.clear()  # what it reads has changed since
    world.invoker.behaviours["calc.double"] = _answering(2)
    assert await world.perform("look") == Succeeded()
    stored = await world.runs.get_step("contoso", "run-1", "look")
    assert stored is not None
    assert stored.output_ref is not None
    told = [record.body["output_sha256"] for record in await records(world, AuditType.DISPATCH_RESULT)]
    assert len(told) == 2
    assert told[-1] == stored.output_ref.sha256


def _answering(n: int) -> Any:
    def answer(request: ExecuteRequest) -> ExecuteResponse:
        return ExecuteSucceeded(output={"n": n})

    return answer


async def test_of_two_ends_of_a_run_the_one_that_is_on_record_stands() -> None:
    world = World()
    await world.submit(plan_of(step("look", "calc.double")))
    change = world.runs.change

    async def die(*rest: Any, **more: Any) -> Any:
        raise KilledError

    world.runs.change = die  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        await world.finish(RunStatus.TERMINATED, code="run.terminated")
    world.runs.change = change  # type: ignore[method-assign]
    run = await world.finish(RunStatus.SUCCEEDED)
    (told,) = await records(world, AuditType.RUN_FINISHED)
    assert (told.body["status"], run.status) == ("terminated", RunStatus.TERMINATED)
    assert run.error is not None
    assert run.error.code == "run.terminated"
