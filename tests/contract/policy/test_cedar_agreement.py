"""The door to Cedar beside Cedar's own tests: the same decision, reasons and errors, or a refusal that stands in the list.

The public test data are requests with the answers of the reference implementation. ``stricter.json`` lists every request that is
allowed there and refused here, with the reason; there is none the other way round.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policy.cedar import CedarAnswer, CedarError, CedarRequest, Entities, PolicySet, Schema, Uid, decide, policies_of
from tests.contract.plan_data.data import data_files, read_jsonl, require

LISTED = Path(__file__).with_name("stricter.json")
_FAILED = re.compile(r"while evaluating policy `([^`]+)`")


def written_by_hand() -> Iterator[dict[str, Any]]:
    root = require("policy/cedar")
    for path in data_files("policy/cedar/tests", "*/*.json"):
        case = json.loads(path.read_text(encoding="utf-8"))
        yield case | {
            "id": f"{path.parent.name}/{path.stem}",
            "policies": (root / case["policies"]).read_text(encoding="utf-8"),
            "entities": json.loads((root / case["entities"]).read_text(encoding="utf-8")),
            "schema": (root / case["schema"]).read_text(encoding="utf-8"),
        }


def generated() -> Iterator[dict[str, Any]]:
    yield from read_jsonl("policy/cedar_corpus.jsonl")


def uid(value: dict[str, Any]) -> Uid:
    found = value.get("__entity", value)
    return Uid(found["type"], found["id"])


def answers_of(case: dict[str, Any]) -> list[CedarAnswer]:
    """Our answer to each request; a refusal of the policies or the entities is one of every request."""
    try:
        policies = PolicySet({f"policy{n}": est for n, est in enumerate(policies_of(case["policies"]))})
        schema = Schema(case["schema"])
        entities = Entities(case["entities"], schema)
    except CedarError as error:
        return [CedarAnswer("deny", code=error.code, errors=(str(error),)) for _ in case["requests"]]
    found = []
    for request in case["requests"]:
        asked = CedarRequest(
            uid(request["principal"]), uid(request["action"]), uid(request["resource"]), request["context"]
        )
        checked = schema if request.get("validateRequest", True) else None
        found.extend(decide([asked], policies, entities, checked))
    return found


def compared(cases: Iterator[dict[str, Any]]) -> tuple[int, list[list[Any]], list[str]]:
    """How many requests agree, those that are refused here only, and everything that is wrong."""
    agreed, stricter, wrong = 0, list[list[Any]](), list[str]()
    for case in cases:
        for number, (request, answer) in enumerate(zip(case["requests"], answers_of(case), strict=True)):
            place = f"{case['id']}#{number}"
            if request["decision"] == "deny" and answer.outcome == "allow":
                wrong.append(f"{place}: allowed")
            elif request["decision"] == "allow" and answer.outcome == "deny":
                stricter.append([case["id"], number, answer.code])
            elif answer.code not in ("", "policy.forbidden", "policy.no_permit", "policy.error"):
                agreed += 1  # a refusal both ways, for a reason of ours
            elif list(answer.ids) != sorted(request["reason"]):
                wrong.append(f"{place}: reasons {answer.ids}, not {request['reason']}")
            elif {m[1] for words in answer.errors if (m := _FAILED.search(words))} != set(request["errors"]):
                wrong.append(f"{place}: errors {answer.errors}, not {request['errors']}")
            else:
                agreed += 1
    return agreed, stricter, wrong


@pytest.mark.parametrize("source", [written_by_hand, generated], ids=["written_by_hand", "generated"])
def test_the_door_agrees_with_cedar_or_is_stricter_as_listed(source: Any) -> None:
    agreed, stricter, wrong = compared(source())
    assert wrong == []
    assert agreed > 50
    assert stricter == json.loads(LISTED.read_text(encoding="utf-8"))[source.__name__]
