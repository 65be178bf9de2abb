"""What the plan check makes of public plans, and how long it takes for fifty steps.

Every gold plan of NESTFUL, Seal-Tools (with its 4,076 tools), WorFBench, AsyncHow and BFCL is turned into our plan language and
checked; the ones refused although their source does not call them wrong are named, because they break the types their own tools
declare. Every corrupted plan must be refused with the code of its defect, except an undeclared dependency: a reference is an edge
there, so it is accepted and the edge is told. The converters are those of the contract tests. Prints one JSON object.

    .venv/bin/python bench/plan_graphs.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.plan import check_plan  # noqa: E402 - path above
from tests.contract.plan_data import verdicts as corpora  # noqa: E402 - path above
from tests.contract.plan_data.corpus import load_corpora  # noqa: E402 - path above
from tests.unit.plan.samples import CATALOG, TENANT, plan, ref, step  # noqa: E402 - path above


def summary(found: Iterable[corpora.Verdict]) -> dict[str, Any]:
    """Accepted and refused, and by name what is refused, with its codes."""
    every = list(found)
    refused = {each.name: list(each.errors) for each in every if each.errors}
    return {
        "plans": len(every),
        "accepted": len(every) - len(refused),
        "refused": len(refused),
        "refused_by_name": refused,
    }


def with_tools(name: str) -> dict[str, Any]:
    """NESTFUL or Seal-Tools: as their labels read types, and under the types their tools declare."""
    labelled, others = corpora.verdicts(name, load_corpora(declared_types=False))
    declared, contradict = corpora.verdicts(name, load_corpora(declared_types=True))
    return {
        "sound_accepted": labelled["accepted"],
        "flawed_refused_for_their_flaw": labelled["refused"],
        "otherwise": [each[0] for each in others],
        "accepted_under_declared_types": declared["accepted"],
        "break_their_own_declared_types": {identity: codes for identity, _, codes in contradict},
    }


def corrupted() -> dict[str, Any]:
    """Defect to code, with counts."""
    found = corpora.corruption(load_corpora(declared_types=False))
    return {
        "refused": {defect: dict(codes) for defect, codes in sorted(found.refused.items())},
        "refused_total": sum(codes.total() for codes in found.refused.values()),
        "undeclared_dependency_accepted_with_inferred_edge": found.inferred,
        "wrong": found.wrong,
    }


def asynchow() -> dict[str, Any]:
    """Accepted, and with the gold time."""
    found = list(corpora.asynchow_verdicts())
    return summary(verdict for verdict, _ in found) | {"time_equals_gold": sum(equal for _, equal in found)}


def fifty_steps() -> dict[str, Any]:
    """Ten layers of five steps, each with inputs, references and needs on the layer before."""
    steps = [step("s0", "data.query", inputs={"job": "j", "from": "2026-01-01", "limit": 10})]
    for at in range(1, 50):
        before = [f"s{other}" for other in range(max(0, at - 5), at)]
        if at % 3:
            steps.append(step(f"s{at}", "rag.search", inputs={"query": "notes", "mode": "fast"}, needs=before))
        else:
            steps.append(step(f"s{at}", "mmm.fit", inputs={"rows": ref("steps.s0#/rows"), "weight": 0.5}, needs=before))
    return plan(*steps, answer={"uses": ["s49"]})


def latency(rounds: int = 200) -> dict[str, Any]:
    """CPU milliseconds of this process for one check of the fifty steps: one core, whatever else the machine does."""
    document = fifty_steps()
    assert check_plan(document, tenant=TENANT, catalog=CATALOG).ok
    took_ms = []
    for _ in range(rounds):
        started = time.process_time()
        check_plan(document, tenant=TENANT, catalog=CATALOG)
        took_ms.append((time.process_time() - started) * 1_000)
    took_ms.sort()
    return {"rounds": rounds, "p50_ms": round(took_ms[rounds // 2], 2), "p95_ms": round(took_ms[int(rounds * 0.95)], 2)}


def main() -> dict[str, Any]:
    """Everything; the latency first, while memory is small."""
    report: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "check_50_steps": latency()}
    report |= {name: with_tools(name) for name in ("nestful", "sealtools")}
    report["worfbench"] = summary(corpora.worfbench_verdicts())
    report["worfbench"]["labelled_but_sound_here"] = sorted(corpora.NOT_A_DEFECT_HERE)
    report["asynchow"] = asynchow()
    report |= {f"bfcl_{name}": summary(corpora.bfcl_verdicts(name)) for name in (*corpora.BFCL, *corpora.BFCL_TURNS)}
    for name in corpora.BFCL_NO_CALL:
        found = summary(corpora.bfcl_verdicts(name))
        report[f"bfcl_{name}"] = {"plans": found["plans"], "refused_as_empty": found["refused"]}
    report["corrupted"] = corrupted()
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only-latency", action="store_true", help="only the time of a check, which needs no data")
    options = parser.parse_args()
    if options.only_latency:
        print(json.dumps({"check_50_steps": latency()}))
        sys.exit()
    if not (options.data / "plans").is_dir():
        sys.exit(f"skipped: no plans in {options.data}/plans; name their folder with --data")
    os.environ["LIVOA_TEST_DATA"] = str(options.data.resolve())
    spoken, sys.stdout = sys.stdout, sys.stderr  # the converters tell their counts on the way
    report = main()
    print(json.dumps(report), file=spoken)
