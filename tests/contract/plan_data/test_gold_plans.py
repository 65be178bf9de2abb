"""Public gold plans are accepted, public corrupted plans refused with the code that names their defect."""

from __future__ import annotations

import pytest

from .corpus import Corpus, load_corpora
from .verdicts import (
    BFCL,
    BFCL_NO_CALL,
    BFCL_TURNS,
    NOT_A_DEFECT_HERE,
    REPEATED_NAMES,
    WRONG_BY_THEIR_OWN_FUNCTIONS,
    WRONG_BY_THEIR_OWN_TOOLS,
    bfcl_verdicts,
    corruption,
    verdicts,
    worfbench_verdicts,
)


@pytest.fixture(scope="module")
def declared() -> dict[str, Corpus]:
    return load_corpora(declared_types=True)


@pytest.fixture(scope="module")
def as_labelled() -> dict[str, Corpus]:
    return load_corpora(declared_types=False)


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
    found = corruption(as_labelled)
    assert found.wrong == []
    assert (sum(found.refused[each].total() for each in found.refused), found.inferred) == (808, 21)


def test_workflow_graphs_are_plans_but_those_with_repeated_names_or_edges_from_nowhere() -> None:
    codes = {each.name: (each.errors, each.defects) for each in worfbench_verdicts()}
    refused = {name: errors for name, (errors, _) in codes.items() if errors}
    assert refused == {
        "worf-seal_tools-028": ("plan.unknown_reference",),
        "worf-wikihow-154": ("plan.duplicate_step",),
        "worf-wikihow-261": ("plan.duplicate_step",),
        **dict.fromkeys(REPEATED_NAMES, ("plan.duplicate_step",)),
    }
    assert {name for name, (errors, defects) in codes.items() if defects and not errors} == NOT_A_DEFECT_HERE
    assert len(codes) == 654


@pytest.mark.parametrize("name", [*BFCL, *BFCL_TURNS])
def test_function_calls_are_plans_but_those_that_contradict_their_own_functions(name: str) -> None:
    found = list(bfcl_verdicts(name))
    wrong = {each.name: each.errors for each in found if each.errors}
    assert set(wrong) <= WRONG_BY_THEIR_OWN_FUNCTIONS
    assert all(errors == ("plan.input_type",) for errors in wrong.values())
    assert found


@pytest.mark.parametrize("name", BFCL_NO_CALL)
def test_calling_nothing_is_not_a_plan(name: str) -> None:
    assert {each.errors for each in bfcl_verdicts(name)} == {("plan.empty",)}
