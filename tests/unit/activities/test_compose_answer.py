"""Composing the answer: written once, kept once, and the evidence says which text the run has."""

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from activities.compose_answer import compose_answer
from engine.domain.answer import Answer
from engine.domain.errors import LivoaError
from engine.domain.run import PayloadRef
from engine.domain.status import RunStatus
from tests.support.world import World, plan_of, step

PAYLOAD = {"tenant_id": "contoso", "run_id": "run-1", "steps": {"succeeded": ["a"]}}


class Composer:
    """Writes these texts, one per call; ``before`` runs in the middle of each."""

    def __init__(self, *texts, before=None):
        self.texts, self.requests, self.before = list(texts), [], before

    async def compose(self, request, sink):
        self.requests.append(request)
        text = self.texts.pop(0)
        await sink.write(text)
        if self.before is not None:
            await self.before()
        return Answer(goal=request.goal, summary=text)


async def ready(composer):
    world = World()
    await world.submit(plan_of(step("a")))
    await world.perform("a")
    world.deps = dataclasses.replace(world.deps, composer=composer)
    return world


async def answer_of(world):
    run = await world.runs.get("contoso", "run-1")
    assert isinstance(run.answer_ref, PayloadRef)
    return Answer.model_validate_json(await world.deps.payloads.get("contoso", "run-1", run.answer_ref)), run


async def synthesis(world):
    records = await world.deps.audit.read("contoso", after_seq=0, limit=100)
    return [record.body["answer_sha256"] for record in records if record.type.value == "synthesis"]


async def texts(world):
    """The text of each writing."""
    found = {}
    for event in await world.deps.events.read("contoso", "run-1", after_seq=0, limit=100):
        if event.type.value == "answer.delta":
            attempt = event.data["answer_attempt"]
            found[attempt] = found.get(attempt, "") + event.data["text"]
    return found


async def test_an_answer_is_written_stored_and_on_record():
    composer = Composer("All is well.")
    world = await ready(composer)
    assert await compose_answer(PAYLOAD, world.deps) == {"status": "composed"}
    answer, run = await answer_of(world)
    assert answer.summary == "All is well."
    assert await texts(world) == {1: "All is well."}
    assert await synthesis(world) == [run.answer_ref.sha256]
    assert "answer.completed" in await world.events()
    (request,) = composer.requests
    assert [(found.step_id, found.output) for found in request.steps] == [("a", {"n": 2})]
    assert request.deadline_at == world.clock.now() + timedelta(seconds=120)


async def test_a_stored_answer_is_not_written_again():
    composer = Composer("Once.", "Twice.")
    world = await ready(composer)
    await compose_answer(PAYLOAD, world.deps)
    before = (await world.events(), await world.audit())
    assert await compose_answer(PAYLOAD, world.deps) == {"status": "composed"}
    assert len(composer.requests) == 1
    assert (await world.events(), await world.audit()) == before


async def test_an_answer_that_was_not_stored_is_begun_anew_and_the_evidence_has_the_one_that_stands():
    world = await ready(Composer("First try.", "Second try."))
    change = world.runs.change

    async def down(*_, **__):
        raise LivoaError("store.unavailable", "down", status=503)

    world.runs.change = down
    failed = {"status": "failed", "code": "store.unavailable", "retryable": True}
    assert await compose_answer(PAYLOAD, world.deps) == failed
    world.runs.change = change
    assert await compose_answer(PAYLOAD, world.deps) == {"status": "composed"}
    answer, run = await answer_of(world)
    assert answer.summary == "Second try."
    assert await texts(world) == {1: "First try.", 2: "Second try."}
    assert run.answer_ref.sha256 in await synthesis(world)


async def test_of_two_deliveries_at_once_one_answer_stands_and_readers_see_whole_texts():
    both = asyncio.Barrier(2)
    world = await ready(Composer("One text.", "Another text.", before=both.wait))
    await asyncio.gather(compose_answer(PAYLOAD, world.deps), compose_answer(PAYLOAD, world.deps))
    answer, run = await answer_of(world)
    assert set((await texts(world)).values()) == {"One text.", "Another text."}
    assert answer.summary in ("One text.", "Another text.")
    assert run.answer_ref.sha256 in await synthesis(world)
    assert (await world.events()).count("answer.completed") == 1


async def test_an_answer_that_comes_when_the_run_is_over_changes_nothing():
    async def over():
        await world.finish(RunStatus.CANCELLED)

    world = await ready(Composer("Too late.", before=over))
    assert await compose_answer(PAYLOAD, world.deps) == {"status": "composed"}
    run = await world.runs.get("contoso", "run-1")
    assert (run.status, run.answer_ref) == (RunStatus.CANCELLED, None)
    assert "answer.completed" not in await world.events()


@pytest.mark.parametrize("raised", [LivoaError("store.unavailable", "no", status=503), RuntimeError("bug")])
async def test_a_composer_that_fails_leaves_no_answer_and_no_piece_behind(raised):
    async def broken():
        raise raised

    world = await ready(Composer("Half an", before=broken))
    if isinstance(raised, LivoaError):
        assert (await compose_answer(PAYLOAD, world.deps))["code"] == raised.code
    else:
        with pytest.raises(RuntimeError):
            await compose_answer(PAYLOAD, world.deps)
    assert await texts(world) == {}
    assert (await world.runs.get("contoso", "run-1")).answer_ref is None
    assert [task for task in asyncio.all_tasks() if "_flush_later" in repr(task)] == []


async def test_a_run_without_a_plan_has_no_answer():
    world = World()
    assert await compose_answer(PAYLOAD, world.deps) == {"status": "failed", "code": "run.no_plan"}
