"""The id of an approval is the question itself: whatever is asked otherwise is another question."""

from __future__ import annotations

import pytest

from engine.domain.approval import ApprovalBinding, asked_sha256

ASKED = ApprovalBinding(
    kind="step", step_id="tell", item=1, plan_hash="p", arguments_sha256="0" * 64, policy_set_hash="s"
)


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "question"},
        {"step_id": "tell2"},
        {"item": 2},
        {"item": None},
        {"plan_hash": "q"},
        {"arguments_sha256": "1" * 64},
        {"policy_set_hash": "t"},
    ],
)
def test_another_question_has_another_id(other: dict[str, object]) -> None:
    assert asked_sha256("run-1", ASKED) != asked_sha256("run-1", ASKED.model_copy(update=other))


def test_the_same_question_of_another_run_has_another_id() -> None:
    assert asked_sha256("run-1", ASKED) == asked_sha256("run-1", ASKED)
    assert asked_sha256("run-1", ASKED) != asked_sha256("run-2", ASKED)
