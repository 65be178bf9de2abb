"""What an agent's HTTP answer means: status, headers and bytes in, an ``ExecuteResponse`` out. Pure.

The body is somebody else's: it is read strictly and within limits, and of a refusal only the code and the detail are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from engine.domain.base import JsonObject
from engine.domain.errors import LivoaError
from engine.domain.execute import (
    EXECUTE_UPDATE,
    MAX_RESPONSE_BYTES,
    ExecuteError,
    ExecuteFailed,
    ExecuteResponse,
    ExecuteRunning,
    ExecuteUpdate,
    is_callees_code,
)
from engine.domain.strict_json import parse

MAX_RETRY_AFTER_S = 3_600
_MAX_PROBLEM_CHARS = 500
_AGENT_CODE = re.compile(r"(agent|auth|grant)\.[a-z_]{1,60}")


def failed(code: str, message: str, *, retryable: bool = False, retry_after_s: float | None = None) -> ExecuteFailed:
    """A typed failure."""
    return ExecuteFailed(
        error=ExecuteError(code=code, message=message, retryable=retryable, retry_after_s=retry_after_s)
    )


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An HTTP answer as it came: ``headers`` with lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def interpret(answer: RawAnswer) -> ExecuteResponse:
    """The meaning of an answer.

    200 is an ``ExecuteResponse`` or a contract violation. 408 and 504: ``agent.timeout``; 409: ``agent.conflict``; 422:
    ``agent.contract_violation``; 429 and 5xx retryable, anything else not; the code of a problem document is kept where it is
    one of the agent contract.
    """
    if answer.status == 200:
        response = _executed(answer)
        return _not_yet() if isinstance(response, ExecuteRunning) else response
    return _refused(answer)


def interpret_update(answer: RawAnswer) -> ExecuteUpdate:
    """The meaning of an answer that may say that the execution goes on: 200 and 202, anything else as ``interpret``."""
    return _executed(answer) if answer.status in (200, 202) else _refused(answer)


def _refused(answer: RawAnswer) -> ExecuteFailed:
    code, detail = _problem(answer)
    message = f"The agent answered {answer.status}" + (f" {code}: {detail}" if code else ".")
    after_s = retry_after_s(answer.headers.get("retry-after", ""))
    match answer.status:
        case 408 | 504:
            return failed("agent.timeout", message, retryable=True, retry_after_s=after_s)
        case 409:
            return failed("agent.conflict", message, retryable=True, retry_after_s=after_s)
        case 422:
            return failed("agent.contract_violation", message)
        case 429:
            return failed(code or "agent.error", message, retryable=True, retry_after_s=after_s)
        case status if status >= 500:
            return failed(code or "agent.error", message, retryable=True, retry_after_s=after_s)
        case status if 300 <= status < 400:
            return failed("agent.error", f"The agent answered {status}; redirects are not followed.")
        case _:
            return failed(code or "agent.error", message)


def _executed(answer: RawAnswer) -> ExecuteUpdate:
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        return failed("agent.contract_violation", "The agent's answer is not application/json.")
    return read_update(answer.body)


def read_update(body: bytes) -> ExecuteUpdate:
    """What an agent says about an execution, or that it breaks the contract."""
    try:
        return _confined(EXECUTE_UPDATE.validate_python(parse(body, max_bytes=MAX_RESPONSE_BYTES)))
    except LivoaError as error:
        return failed("agent.contract_violation", f"The agent's answer is not acceptable JSON: {error.code}.")
    except ValidationError as error:
        places = sorted({"/".join(str(part) for part in one["loc"])[:80] for one in error.errors(include_input=False)})
        return failed("agent.contract_violation", f"The agent's answer breaks the contract at {', '.join(places[:5])}.")


def _not_yet() -> ExecuteFailed:
    return failed("agent.contract_violation", "The agent says with status 200 that the execution goes on.")


def _confined(response: ExecuteUpdate) -> ExecuteUpdate:
    """What says a code that an agent may give, or ``agent.error``."""
    if not isinstance(response, ExecuteFailed) or is_callees_code(response.error.code):
        return response
    error = response.error
    return failed("agent.error", error.message, retryable=error.retryable, retry_after_s=error.retry_after_s)


def _problem(answer: RawAnswer) -> tuple[str, str]:
    """Code and detail of a problem document; empty where there is none or it is not well-formed."""
    try:
        document: JsonObject = parse(answer.body, max_bytes=MAX_RESPONSE_BYTES)
    except LivoaError:
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    code, detail = document.get("code"), document.get("detail")
    known = isinstance(code, str) and _AGENT_CODE.fullmatch(code) is not None
    return str(code) if known else "", detail[:_MAX_PROBLEM_CHARS] if known and isinstance(detail, str) else ""


def retry_after_s(value: str) -> float | None:
    """Delta seconds, capped at an hour. The date form is ignored: it needs two clocks to agree."""
    return float(min(int(value), MAX_RETRY_AFTER_S)) if re.fullmatch(r"\d{1,9}", value) else None
