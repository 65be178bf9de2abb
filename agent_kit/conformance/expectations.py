"""What checks have in common: the call they make, and how they say that something is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agent_kit.conformance.client import Caller, Reply
from agent_kit.problems import PROBLEM_TYPE
from agent_kit.schemas import CompiledSchema
from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.execute import EXECUTE_UPDATE, MAX_RESPONSE_BYTES, ExecuteRequest, ExecuteSucceeded


class FailedError(Exception):
    """The agent does something else than the contract says."""


class NotApplicableError(Exception):
    """The check cannot be made of this agent."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is called: one capability with inputs that fit it."""

    caller: Caller
    capability: Capability
    inputs: JsonObject

    def request(self, **changes: Any) -> ExecuteRequest:
        """A good request of a run of its own."""
        return self.caller.request(self.capability.name, self.inputs, **changes)


def expect(holds: bool, otherwise: str) -> None:
    """Raises ``FailedError`` unless it holds."""
    if not holds:
        raise FailedError(otherwise)


def expect_problem(reply: Reply, statuses: frozenset[int]) -> None:
    """A refusal with one of the statuses, as a problem document with a code."""
    wanted = " or ".join(str(status) for status in sorted(statuses))
    expect(reply.status in statuses, f"expected {wanted}, got {reply}")
    expect(reply.media_type == PROBLEM_TYPE, f"a refusal must be {PROBLEM_TYPE}, not {reply.media_type or 'nothing'}")
    expect(bool(reply.code), "a refusal must have a code")


def expect_success(reply: Reply, capability: Capability) -> Any:
    """The output of a success that keeps the manifest's promise."""
    expect(reply.status == 200, f"expected a result, got {reply}")
    try:
        update = EXECUTE_UPDATE.validate_python(reply.document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise FailedError(f"the answer breaks its form at /{'/'.join(str(part) for part in first['loc'])}") from None
    if not isinstance(update, ExecuteSucceeded):
        said = update.error.code if update.status == "failed" else update.status
        raise FailedError(f"the call did not succeed ({said}); perhaps other inputs are needed")
    expect(len(reply.body) <= MAX_RESPONSE_BYTES + 64 * 1024, "the answer is too large")
    found = CompiledSchema(capability.output_schema).violations(update.output, code="x")
    expect(not found, f"the output breaks the manifest at {found[0].pointer or '/'}" if found else "")
    return update.output
