"""Ends of executions that no caller makes: each becomes an answer of the contract at once, and frees its slot."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from agent_kit import Agent, IdempotencyStore, StepContext, execution
from agent_kit.agent import Handler
from agent_kit.execution import Answer, Executions, Running
from agent_kit.schemas import CompiledSchema
from engine.domain.execute import EXECUTE_RESPONSE, ExecuteFailed, ExecuteResponse
from tests.contract.agents.harness import Note, manifest, request

NAME = "probe.end"
UNKNOWN = ("agent.result_unknown", False)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as found:
        yield found


@pytest.fixture
def executions(executor: ThreadPoolExecutor) -> Executions:
    return Executions(IdempotencyStore(None), executor, lambda: datetime.now(UTC), slots=4)


def begin(
    executions: Executions, handler: Handler, *, again: bool = False, timeout_s: float = 20.0
) -> Answer | Running:
    """Begin it with any output at all; the same key every time."""
    agent = Agent({NAME: manifest(NAME, timeout_s, idempotent=again)})
    agent.capability(NAME)(handler)
    registered = replace(agent.capabilities[NAME], output_schema=CompiledSchema({}))
    return executions.begin(registered, request(NAME), traceparent=None)


async def end_of(executions: Executions, begun: Answer | Running) -> ExecuteResponse:
    answer = begun if isinstance(begun, Answer) else await executions.wait(begun, None)
    assert answer is not None
    return EXECUTE_RESPONSE.validate_json(answer.body)


async def said(executions: Executions, begun: Answer | Running) -> tuple[str, bool]:
    response = await end_of(executions, begun)
    assert isinstance(response, ExecuteFailed), response
    return response.error.code, response.error.retryable


async def count(inputs: Note, context: StepContext) -> dict[str, Any]:
    return {"count": 1}


async def waits_for_what_was_cancelled(inputs: Note, context: StepContext) -> dict[str, Any]:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task
    return {}


@pytest.mark.parametrize(("again", "code"), [(False, UNKNOWN), (True, ("agent.internal", True))])
async def test_waiting_for_something_of_its_own_that_was_cancelled_is_an_error_nobody_expected(
    executions: Executions, again: bool, code: tuple[str, bool]
) -> None:
    assert await said(executions, begin(executions, waits_for_what_was_cancelled, again=again)) == code
    assert not executions.running
    second = begin(executions, count, again=again)
    if again:
        assert (await end_of(executions, second)).status == "succeeded", "its key was free"
    else:
        assert await said(executions, second) == UNKNOWN


async def test_who_is_stopped_before_its_first_step_never_began_and_leaves_its_key_free(executions: Executions) -> None:
    begun = begin(executions, count)
    assert isinstance(begun, Running)
    begun.stop("draining")
    assert await said(executions, begun) == ("agent.interrupted", True)
    assert (await end_of(executions, begin(executions, count))).status == "succeeded"


class Odd(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: Any


@pytest.mark.parametrize(
    "output", [{"a": "\ud800"}, {"\udfff": 1}, ["é\ud800"], Odd(thing=object()), Odd(thing="\ud800")]
)
async def test_an_output_that_cannot_be_written_violates_the_contract(executions: Executions, output: Any) -> None:
    async def odd(inputs: Note, context: StepContext) -> Any:
        return output

    for _ in range(2):
        assert await said(executions, begin(executions, odd)) == ("agent.contract_violation", False)


async def test_texts_beyond_ascii_are_texts(executions: Executions) -> None:
    async def words(inputs: Note, context: StepContext) -> Any:
        return {"žluťoučký": "kůň 🐎", "": ""}

    assert (await end_of(executions, begin(executions, words))).status == "succeeded"


async def test_what_follows_work_that_outlasts_the_deadline_has_an_end(
    executions: Executions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "_AFTER_COMPUTE_S", 0.05)
    go_on = threading.Event()

    async def hangs(inputs: Note, context: StepContext) -> Any:
        await context.compute(go_on.wait)
        await asyncio.Event().wait()

    begun = begin(executions, hangs, timeout_s=0.05)
    assert isinstance(begun, Running)
    assert begun.task is not None
    while begun.stopped is None:  # noqa: ASYNC110 - its deadline is a timer
        await asyncio.sleep(0.005)
    assert not begun.task.done(), "the work cannot be stopped"
    go_on.set()
    await asyncio.wait({begun.task}, timeout=30)
    assert begun.task.done()
    assert not executions.running
    assert await said(executions, begin(executions, count)) == UNKNOWN


@pytest.mark.parametrize(
    ("reason", "code"), [("cancelled", ("agent.cancelled", False)), ("deadline", UNKNOWN), ("draining", UNKNOWN)]
)
async def test_work_that_waits_for_a_thread_when_it_is_stopped_has_no_effect_later(
    executions: Executions, executor: ThreadPoolExecutor, reason: execution.Reason, code: tuple[str, bool]
) -> None:
    go_on, effects = threading.Event(), list[str]()
    executor.submit(go_on.wait)

    async def send(inputs: Note, context: StepContext) -> Any:
        return await context.compute(effects.append, "sent")

    begun = begin(executions, send)
    assert isinstance(begun, Running)
    while not begun.context.pending:  # noqa: ASYNC110 - nobody tells that it waits
        await asyncio.sleep(0.005)
    begun.stop(reason)
    go_on.set()
    assert begun.task is not None
    await asyncio.wait({begun.task}, timeout=30)
    assert not effects
    assert await said(executions, begin(executions, send)) == code
    assert not effects
