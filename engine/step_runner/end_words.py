"""What is said of a run that ends, and of its steps that the scheduler settled: words for people, never the code again."""

from __future__ import annotations

from collections.abc import Iterable

from engine.domain.run import ErrorInfo, StepRecord
from engine.domain.status import StepStatus

_RUN_MESSAGES = {
    "run.cancelled": "cancelled on request; finished steps and their outputs are kept",
    "run.terminated": "terminated on request; finished steps and their outputs are kept, and nothing was undone",
    "run.deadline": "the run's deadline passed; finished steps and their outputs are kept",
    "quota.no_place": "the tenant has as many runs under way as it may; no place became free in time",
    "run.steps_failed": "a step that the answer needs failed; see the steps",
}
STEP_MESSAGES = {
    "step.needs_failed": "a step it needs did not succeed",
    "step.needs_denied": "policy denied a step it needs",
    "step.needs_skipped": "a step it needs was skipped",
    "step.needs_cancelled": "a step it needs was cancelled",
    "step.never_begun": "the run ended before this step was begun",
    "step.replaced": "a repair of the plan put other steps in its place",
    "activity.crashed": "the engine failed while the step ran; nothing is known of its result",
    "undo.still_open": "nothing is known of the step's end, so its effect may stand",
    "run.cancelled": "the run was cancelled first",
    "run.terminated": "the run was terminated first",
    "run.deadline": "the run's deadline passed first",
}
NOT_AGAIN = "it was not tried again: the run's deadline would have passed first"
"""Why an attempt that was due is not made, though nobody stopped the run."""


def run_error(code: str | None, steps: Iterable[StepRecord]) -> ErrorInfo | None:
    """Why the run ended as it did. ``code`` is its own, or that of a step without which there is no answer.

    What was said of a denial is ours, and in the log already. The message of a failure may quote an agent, and an event of the
    run must not: it names the step."""
    if code is None:
        return None
    step = next((each for each in steps if each.error is not None and each.error.code == code), None)
    words = _RUN_MESSAGES.get(code) or f"the run ended with {code}"
    if code not in _RUN_MESSAGES and step is not None and step.error is not None:
        denied = step.status is StepStatus.DENIED
        words = f"step {step.step_id}: {step.error.message}" if denied else f"step {step.step_id} did not succeed"
    return ErrorInfo(code=code, message=words)


def step_words(code: str, before: StepRecord | None, *, stopped: bool) -> str:
    """Why a step ended that has no end on record. ``before`` is its record so far; ``stopped`` when somebody ended the run.

    A step that waited for another attempt and failed for the same reason had no time left for it."""
    if code in STEP_MESSAGES:
        return STEP_MESSAGES[code]
    if before is None or before.error is None or before.error.code != code:
        return "it did not succeed, and nothing more is on record"
    waited = before.status is StepStatus.WAITING and code.startswith("agent.")  # a store's failure may leave no record
    message = before.error.message or "it failed"
    return f"{message.rstrip('.')}; {NOT_AGAIN}" if waited and not stopped else message
