"""What an agent promises about calls that end in the middle: begun again only where the manifest says that it may be.

A capability that answers at once cannot be cut off; then nothing is known, and the check says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from agent_kit.conformance.client import Reply
from agent_kit.conformance.expectations import FailedError, NotApplicableError, Subject, expect, expect_success
from engine.domain.execute import EXECUTE_UPDATE, ExecuteFailed, ExecuteRequest

_ASYNC = {"Prefer": "respond-async, wait=0"}
CUT_OFF_AFTER_S = 1.0
"""The deadline of a call that is to be cut off: long enough to arrive, too short for work that takes its time."""


async def _at_its_deadline(subject: Subject) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=CUT_OFF_AFTER_S)
    request = subject.request(step_id="cut-off", deadline_at=soon)
    await _accepted(subject, request)
    ended = await subject.caller.result(subject.caller.about(request))
    if ended.status == 404:
        raise NotApplicableError("nothing is known of it after its deadline")
    await _never_begun_again(subject, request, ended)


async def _stopped(subject: Subject) -> None:
    request = subject.request(step_id="stopped")
    await _accepted(subject, request)
    stopped = await subject.caller.send(subject.caller.about(request, "DELETE"))
    expect(stopped.status == 200, f"expected what has become of it, got {stopped}")
    await _never_begun_again(subject, request, await subject.caller.result(subject.caller.about(request)))


async def _accepted(subject: Subject, request: ExecuteRequest) -> None:
    reply = await subject.caller.send(subject.caller.good(request).but(headers=_ASYNC))
    if reply.status != 202:
        raise NotApplicableError("it is over before it could be cut off; name a capability that takes some seconds")


async def _never_begun_again(subject: Subject, request: ExecuteRequest, ended: Reply) -> None:
    """Where it may not be repeated its end is final, and every later attempt is told the same; else the next one may succeed."""
    last_word = _failure_of(ended)
    if last_word is None:
        raise NotApplicableError("it went on to its end, and succeeded")
    again = request.model_copy(update={"attempt": 2, "deadline_at": subject.request().deadline_at})
    if subject.capability.is_repeatable:
        found = await subject.caller.result(subject.caller.good(again))
        if last_word.error.retryable or _failure_of(found) != last_word:
            expect_success(found, subject.capability)
        return
    expect(not last_word.error.retryable, "it may have had its effect, so trying again must not be offered")
    for attempt in (2, 3):
        retry = again.model_copy(update={"attempt": attempt})
        found = await subject.caller.result(subject.caller.good(retry))
        told = _failure_of(found)
        expect(told == last_word, f"begun again, or told something else, after it was cut off: {found}")


def _failure_of(reply: Reply) -> ExecuteFailed | None:
    """The failure that an answer tells of; None for a success."""
    expect(reply.status == 200, f"expected what has become of it, got {reply}")
    document: Any = reply.document
    try:
        update = EXECUTE_UPDATE.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise FailedError(f"the answer breaks its form at /{'/'.join(str(part) for part in first['loc'])}") from None
    return update if isinstance(update, ExecuteFailed) else None


CUT_OFF: tuple[tuple[str, Callable[[Subject], Awaitable[None]]], ...] = (
    ("execution.cut_off", _at_its_deadline),
    ("execution.stopped", _stopped),
)
