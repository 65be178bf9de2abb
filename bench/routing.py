"""How well intents are routed without a model, on public data: in-scope accuracy, out-of-scope recall, few-shot, time.

Trains on the train split, fits the scope rule on the validation split, reports the test split; a rejected in-scope text counts
as wrong. It is the code that serves tenants' catalogs (``planner_graph.routing``). ``--embedding`` adds sentence embeddings
(requirements-embedding.txt; minutes for 15,000 sentences the first time, then kept under ``--keep``). Prints one JSON object.

    .venv/bin/python bench/routing.py --data ../shared/data --only clinc150
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from planner_graph.routing import WITH_EMBEDDINGS, EmbeddingSource, IntentModel, TrainingSettings, train  # noqa: E402 - path above

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class DataSet:
    """One public data set. ``outside`` holds texts of no label: for training, for validation, and named test sets."""

    name: str
    train: Pairs
    valid: Pairs
    test: Pairs
    train_outside: Sequence[str] = ()
    valid_outside: Sequence[str] = ()
    test_outside: tuple[tuple[str, Sequence[str]], ...] = ()


class Files:
    """The ``intents`` folder of the data."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "intents"

    def pairs(self, name: str) -> Pairs:
        """(label, text) of a file that has labels only."""
        return [(record["intent"], record["text"]) for record in self._records(name)]

    def texts(self, name: str) -> list[str]:
        """The texts of a file of out-of-scope texts."""
        return [record["text"] for record in self._records(name)]

    def _records(self, name: str) -> Iterator[dict[str, Any]]:
        with (self._folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def _clinc150(files: Files) -> DataSet:
    train, valid, test = (files.pairs(f"clinc150_{part}") for part in ("train", "val", "test"))
    outside = [files.texts(f"clinc150_oos_{part}") for part in ("train", "val", "test")]
    return DataSet("clinc150", train, valid, test, outside[0], outside[1], (("oos", outside[2]),))


def _clinc150_plain(files: Files) -> DataSet:
    """Without the out-of-scope texts of the train split: the scope rule has only validation data to go by."""
    full = _clinc150(files)
    return DataSet(
        "clinc150_without_oos_train", full.train, full.valid, full.test, (), full.valid_outside, full.test_outside
    )


def _held_out(name: str, files: Files, test: str) -> DataSet:
    """A data set without validation split: every tenth sentence of the train split is held out for it."""
    everything = files.pairs(f"{name}_train")
    valid = everything[::10]
    return DataSet(name, [each for at, each in enumerate(everything) if at % 10], valid, files.pairs(test))


def _with_two_kinds(name: str, files: Files) -> DataSet:
    """Out-of-scope test texts of the same domain and of other domains. The data has none for validation, so the scope rule
    is fitted on everyday sentences of our own, and says so by its figures."""
    from planner_graph.routing.everyday import EVERYDAY

    kinds = tuple((kind, files.texts(f"{name}_{kind}_test")) for kind in ("id-oos", "ood-oos"))
    train, valid, test = (files.pairs(f"{name}_{part}") for part in ("train", "valid", "test"))
    return DataSet(name, train, valid, test, EVERYDAY[::2], EVERYDAY[1::2], kinds)


SETS: dict[str, Callable[[Files], DataSet]] = {
    "clinc150": _clinc150,
    "clinc150_without_oos_train": _clinc150_plain,
    "banking77": lambda files: _held_out("banking77", files, "banking77_test"),
    "banking77oos": lambda files: _with_two_kinds("banking77oos", files),
    "hwu64": lambda files: DataSet("hwu64", *(files.pairs(f"hwu64_{part}") for part in ("train", "valid", "test"))),
    "clincbank": lambda files: _with_two_kinds("clincbank", files),
    "clinccards": lambda files: _with_two_kinds("clinccards", files),
}


def shots(examples: Pairs, count: int) -> Pairs:
    """``count`` examples of each label, drawn with a fixed seed.

    Not the first ones: in BANKING77-OOS the first of each label's block carry the label of the block before (366 of 5,905 differ
    from BANKING77's own labels).
    """
    by_label: dict[str, list[str]] = {}
    for label, text in examples:
        by_label.setdefault(label, []).append(text)
    draw = random.Random(7)
    return [(label, text) for label, texts in by_label.items() for text in draw.sample(texts, min(count, len(texts)))]


def measure(data: DataSet, examples: Pairs, source: EmbeddingSource | None) -> dict[str, Any]:
    """Train, fit the scope rule on validation data, report the test split."""
    started, cpu_started = time.perf_counter(), time.process_time()
    model = train(
        examples,
        out_of_scope=data.train_outside,
        settings=WITH_EMBEDDINGS if source else TrainingSettings(),
        encoder=source.for_examples() if source else None,
    )
    train_s, train_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    model = model.calibrated(data.valid, data.valid_outside)
    found: list[tuple[bool, bool]] = []
    took_ms: list[float] = []
    for label, text in data.test:
        began = time.perf_counter()
        assessed = model.assess(text)
        took_ms.append((time.perf_counter() - began) * 1_000)
        found.append((assessed.ranked[0].name == label, assessed.in_scope))
    took_ms.sort()
    right = sum(is_right for is_right, _ in found) / len(found)
    report: dict[str, Any] = {
        "labels": len(model.labels),
        "examples": len(examples),
        "tests": len(found),
        "accuracy": round(right, 4),
    }
    if data.valid_outside:
        report["in_scope_accuracy"] = round(sum(both == (True, True) for both in found) / len(found), 4)
        rejected = sum(not inside for _, inside in found)
        report["out_of_scope"] = {name: _outside(model, texts, rejected) for name, texts in data.test_outside}
    times = {
        "train_s": train_s,
        "train_cpu_s": train_cpu_s,
        "p50_ms": took_ms[len(took_ms) // 2],
        "p95_ms": took_ms[int(len(took_ms) * 0.95)],
    }
    return report | {name: round(value, 3) for name, value in times.items()}


def _outside(model: IntentModel, texts: Sequence[str], falsely_rejected: int) -> dict[str, Any]:
    caught = sum(not model.in_scope(text)[0] for text in texts)
    recall = caught / len(texts)
    precision = caught / max(1, caught + falsely_rejected)
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return {"tests": len(texts), "recall": round(recall, 4), "precision": round(precision, 4), "f1": round(f1, 4)}


def main(data: Path, only: Sequence[str], source: EmbeddingSource | None) -> dict[str, Any]:
    """Every data set, with all examples and with five and ten per label."""
    files = Files(data)
    report: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "router": "embedding" if source else "lexical"}
    for name in only or SETS:
        found = SETS[name](files)
        report[name] = {
            "all": measure(found, found.train, source),
            **{f"{count}_shot": measure(found, shots(found.train, count), source) for count in (5, 10)},
        }
        print(f"{name}: {report[name]['all']}", file=sys.stderr)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", action="append", choices=sorted(SETS), default=[])
    parser.add_argument(
        "--embedding", action="store_true", help="with sentence embeddings (requirements-embedding.txt)"
    )
    parser.add_argument("--keep", type=Path, default=ROOT / ".livoa", help="folder where vectors of examples are kept")
    options = parser.parse_args()
    if not (options.data / "intents").is_dir():
        sys.exit(f"skipped: no routing data in {options.data}/intents; name its folder with --data")
    embedding = EmbeddingSource(options.keep) if options.embedding else None
    if embedding is not None and embedding.encoder() is None:
        sys.exit(f"skipped: {embedding.reason}")
    print(json.dumps(main(options.data, options.only, embedding)))
