"""What our check says of public gold and corrupted plans, beside their labels. For the tests and bench/plan_graphs.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.plan import check_plan
from tests.unit.plan.samples import CATALOG, TENANT

from .corpus import Corpus
from .data import read_jsonl
from .more_corpora import asynchow_plan, asynchow_seconds, bfcl_documents, bfcl_plan, worfbench_plan

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

WRONG_BY_THEIR_OWN_FUNCTIONS = {
    "parallel_multiple_21",
    "multi_turn_base_173",
    "multi_turn_miss_func_173",
    "multi_turn_miss_param_173",
}
"""BFCL answers that give a text where their own function declares an array or an integer."""

REPEATED_NAMES = {"worf-wikihow-070"}
"""A WorFBench graph that names two nodes alike, without a label that says so."""

NOT_A_DEFECT_HERE = {
    "worf-seal_tools-059",
    "worf-seal_tools-210",
    "worf-intercodesql-193",
    "worf-lumos-128",
    "worf-lumos-188",
    "worf-lumos-189",
    "worf-wikihow-165",
    "worf-wikihow-200",
}
"""Labelled because an edge from START or to END is missing, or an edge stands twice. Our plans have no START and END (a step
without needs starts), and needing a step twice is needing it: what remains is a sound plan."""

BFCL = ("multiple", "parallel", "parallel_multiple", "live_parallel", "live_parallel_multiple")
BFCL_TURNS = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param")
BFCL_NO_CALL = ("irrelevance", "live_relevance")
"""Records whose right answer is to call nothing: the empty plan, which is refused as such."""


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


@dataclass(frozen=True)
class Verdict:
    """One plan: the codes it was refused with (none: accepted)."""

    name: str
    errors: tuple[str, ...]
    defects: tuple[str, ...] = ()


def worfbench_verdicts() -> Iterator[Verdict]:
    """Every graph of WorFBench."""
    for record in read_jsonl("plans/worfbench.jsonl"):
        result = check_plan(worfbench_plan(record), tenant=TENANT, catalog=CATALOG)
        codes = tuple(sorted({each.code for each in result.violations}))
        yield Verdict(record["id"], codes, tuple(record["natural_defects"]))


def bfcl_verdicts(name: str) -> Iterator[Verdict]:
    """Every gold answer of one part of BFCL."""
    documents = bfcl_documents()
    for record in read_jsonl(f"plans/bfcl_{name}.jsonl"):
        corpus, document = bfcl_plan(record, documents)
        result = check_plan(document, tenant=corpus.tenant, catalog=corpus.catalog)
        yield Verdict(record["id"], tuple(sorted({each.code for each in result.violations})))


def asynchow_verdicts() -> Iterator[tuple[Verdict, bool]]:
    """Every plan of AsyncHow, and whether its time is the gold one (with the shortest and with the longest durations)."""
    for record in read_jsonl("plans/asynchow.jsonl"):
        result = check_plan(asynchow_plan(record), tenant=TENANT, catalog=CATALOG)
        times = ((asynchow_seconds(record, bound), record["optimal_s"][bound]) for bound in (0, 1))
        equal = all(abs(ours - gold) <= 1e-6 * max(1.0, ours) for ours, gold in times)
        verdict = Verdict(record["id"], tuple(sorted({each.code for each in result.violations})))
        yield verdict, equal or record["gold_mismatch"]


@dataclass(frozen=True)
class Corruption:
    """What became of the corrupted plans: refused by defect and code, edges inferred, and the ones refused otherwise or not."""

    refused: dict[str, Counter[str]]
    inferred: int
    wrong: list[tuple[str, str, list[str]]]


def corruption(corpora: dict[str, Corpus]) -> Corruption:
    """Every corrupted plan. A reference is an edge whether or not ``needs`` names it: that one is accepted, its author told."""
    refused: dict[str, Counter[str]] = {}
    inferred, wrong = 0, []
    for record in read_jsonl("plans/corrupted.jsonl"):
        errors, warnings = codes_of(record, corpora)
        defect = record["defect"]
        if defect == "undeclared_dependency":
            inferred += not errors and "plan.edge_inferred" in warnings
            continue
        refused.setdefault(defect, Counter()).update(CODES[defect] & errors)
        if not CODES[defect] <= errors:
            wrong.append((record["id"], defect, sorted(errors)))
    return Corruption(refused, inferred, wrong)
