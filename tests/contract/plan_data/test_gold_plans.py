"""Public gold plans are accepted, public corrupted plans refused with the code that names their defect."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from engine.plan import check_plan

from .corpus import Corpus, load_corpora
from .data import read_jsonl

CODES: dict[str, set[str]] = {
    "unknown_tool": {"plan.unknown_capability"},
    "unknown_dependency": {"plan.unknown_reference"},
    "dangling_reference": {"plan.unknown_reference"},
    "self_dependency": {"plan.self_reference"},
    "cycle": {"plan.cycle"},
    "duplicate_id": {"plan.duplicate_step"},
    "empty_plan": {"plan.empty"},
    "missing_argument": {"plan.input_missing"},
    "unknown_argument": {"plan.input_unknown"},
    "enum_violation": {"plan.input_enum"},
    "type_mismatch": {"plan.input_type"},
    "unknown_output_field": {"plan.unknown_output"},
}
"""The code of ours that stands for each defect of the corpora."""


WRONG_BY_THEIR_OWN_TOOLS = {
    "nestful-exec-031",
    "nestful-glaive-000",
    "nestful-glaive-066",
    "nestful-glaive-068",
    "nestful-glaive-161",
    "nestful-glaive-162",
    "sealtools-dev-difficult-676",
    "sealtools-test_in_domain-difficult-274",
    "sealtools-test_in_domain-difficult-547",
    "sealtools-test_in_domain-difficult-569",
    "sealtools-test_in_domain-difficult-595",
    "sealtools-test_out_domain-difficult-117",
}
"""Gold plans without a labelled defect that give a literal of another type than their own tool declares (a number for text,
"per month" for a number, an array for a number). We coerce nothing, so under the declared types they are refused."""


@pytest.fixture(scope="module")
def declared() -> dict[str, Corpus]:
    return load_corpora(declared_types=True)


@pytest.fixture(scope="module")
def as_labelled() -> dict[str, Corpus]:
    return load_corpora(declared_types=False)


def codes_of(record: dict[str, Any], corpora: dict[str, Corpus]) -> tuple[set[str], set[str]]:
    corpus = corpora[record["catalog"]]
    result = check_plan(corpus.plan(record), tenant=corpus.tenant, catalog=corpus.catalog)
    assert result.ok == (not result.violations)
    return {each.code for each in result.violations}, {each.code for each in result.warnings}


def verdicts(name: str, corpora: dict[str, Corpus]) -> tuple[Counter[str], list[tuple[str, list[str], list[str]]]]:
    """How many plans were accepted and refused as their labels say, and the others."""
    counts: Counter[str] = Counter()
    other = []
    for record in read_jsonl(f"plans/{name}.jsonl"):
        errors, _ = codes_of(record, corpora)
        defects = record["natural_defects"]
        expected = {code for defect in defects for code in CODES[defect]}
        if "self_dependency" in defects:
            expected.discard(
                "plan.cycle"
            )  # the labels call a loop of one step a cycle as well; we have one code for it
        if expected <= errors if defects else not errors:
            counts["refused" if defects else "accepted"] += 1
        else:
            other.append((record["id"], defects, sorted(errors)))
    print(f"{name}: {counts['accepted']} sound accepted, {counts['refused']} flawed refused, {len(other)} otherwise")
    return counts, other


@pytest.mark.parametrize(("name", "sound", "flawed"), [("nestful", 58, 30), ("sealtools", 626, 0)])
def test_sound_gold_plans_pass_and_flawed_ones_are_refused_for_their_flaws(
    name: str, sound: int, flawed: int, as_labelled: dict[str, Corpus]
) -> None:
    counts, other = verdicts(name, as_labelled)
    assert other == []
    assert (counts["accepted"], counts["refused"]) == (sound, flawed)


@pytest.mark.parametrize("name", ["nestful", pytest.param("sealtools", marks=pytest.mark.thorough)])
def test_with_declared_types_only_plans_that_contradict_their_own_tools_are_refused_as_well(
    name: str, declared: dict[str, Corpus]
) -> None:
    _, other = verdicts(name, declared)
    assert {(identity, tuple(errors)) for identity, _, errors in other} == {
        (identity, ("plan.input_type",)) for identity in WRONG_BY_THEIR_OWN_TOOLS if identity.startswith(name)
    }


def test_every_corrupted_plan_is_refused_for_its_defect(as_labelled: dict[str, Corpus]) -> None:
    refused: Counter[str] = Counter()
    inferred, wrong = 0, []
    for record in read_jsonl("plans/corrupted.jsonl"):
        errors, warnings = codes_of(record, as_labelled)
        if record["defect"] == "undeclared_dependency":
            # Decided once: a reference is an edge whether or not 'needs' names it; the author is told.
            inferred += not errors and "plan.edge_inferred" in warnings
            continue
        refused[record["defect"]] += 1
        if not CODES[record["defect"]] <= errors:
            wrong.append((record["id"], record["defect"], sorted(errors)))
    print(f"corrupted: {dict(refused)} refused, {inferred} edges inferred, {len(wrong)} wrong")
    assert wrong == []
    assert (sum(refused.values()), inferred) == (808, 21)
