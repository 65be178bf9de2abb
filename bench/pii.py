"""How much personal data the detector finds in sentences nobody here wrote: recall and precision per type, and how long
it takes.

``python -m bench.pii --data PATH`` (needs requirements-pii.txt; ``--model NAME`` adds names, with an installed spaCy
pipeline). The sentences are presidio-research's synthetic ones (``guardrails/pii_presidio_synth.jsonl``). A marked
piece counts as found when a finding of its type overlaps it, and as covered when the findings of any type cover all of
it: only then nothing of it would leave. A finding is right when it overlaps a marked piece of its type.
``built_in_masking`` is what the masking of logs and spans takes out, ``per_log_record_us`` what
that costs, beside what the detector would. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.adapters.otel.logs import JsonFormatter
from engine.adapters.presidio import PresidioDetector, installed
from engine.domain.masking import mask
from engine.domain.personal_data import Found, PersonalDataType

FILE = "guardrails/pii_presidio_synth.jsonl"
OURS = {"GPE": "LOCATION", "STREET_ADDRESS": "LOCATION", "ZIP_CODE": "LOCATION"}
"""Types of the data under the names of the detector's."""

Span = tuple[str, int, int]
Row = tuple[str, list[Span]]


def rows_of(path: Path) -> list[Row]:
    """Text and marked pieces of every sentence."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [(line["text"], [(kind, start, end) for kind, start, end in line["spans"]]) for line in lines]


def figures(rows: Iterable[Row], find: Callable[[str], list[Found]], known: frozenset[str]) -> dict[str, Any]:
    """Recall per type of the data, precision per type of the detector."""
    marked, found, covered, said, right = (Counter[str]() for _ in range(5))
    for text, spans in rows:
        hits = find(text)
        hidden = {place for hit in hits for place in range(hit.start, hit.end)}
        for kind, start, end in spans:
            marked[kind] += 1
            found[kind] += any(hit.type == OURS.get(kind, kind) and _overlap(hit, start, end) for hit in hits)
            covered[kind] += hidden.issuperset(range(start, end))
        for hit in hits:
            said[hit.type] += 1
            right[hit.type] += any(OURS.get(kind, kind) == hit.type and _overlap(hit, a, b) for kind, a, b in spans)
    recall = {
        kind: {
            "marked": count,
            "found": found[kind],
            "covered": covered[kind],
            "recall": round(found[kind] / count, 3),
            "in_reach": OURS.get(kind, kind) in known,
        }
        for kind, count in sorted(marked.items())
    }
    precision = {
        kind: {"findings": count, "right": right[kind], "precision": round(right[kind] / count, 3)}
        for kind, count in sorted(said.items())
    }
    return {"recall": recall, "precision": precision}


def _overlap(hit: Found, start: int, end: int) -> bool:
    return hit.start < end and start < hit.end


def built_in(rows: Iterable[Row]) -> dict[str, Any]:
    """What the masking of logs and spans takes out: pieces that no longer stand in the text, per type."""
    marked, gone = Counter[str](), Counter[str]()
    untouched = 0
    for text, spans in rows:
        left = mask(text)
        untouched += left == text
        for kind, start, end in spans:
            marked[kind] += 1
            gone[kind] += text[start:end] not in left
    masked = {kind: {"marked": count, "gone": gone[kind]} for kind, count in sorted(marked.items()) if gone[kind]}
    return {"masked": masked, "sentences_left_as_they_were": untouched}


LINE = "run accepted {} tenant contoso route POST runs status 202, started within the time that a run has"


def per_log_record(detector: PresidioDetector, lines: int = 1_000) -> dict[str, float]:
    """Processor time (µs) of a log record as it is, of the masking in it, and of the detector if it were asked."""

    def spent_us(work: Callable[[str], object], name: str) -> float:
        texts = [LINE.format(f"{name}{number}") for number in range(lines)]
        started = time.process_time()
        for text in texts:
            work(text)
        return round(1e6 * (time.process_time() - started) / lines, 1)

    def record(text: str) -> object:
        return JsonFormatter().format(logging.makeLogRecord({"msg": text, "levelname": "INFO", "name": "livoa.bench"}))

    return {
        "record": spent_us(record, "a"),
        "masking": spent_us(mask, "b"),
        "detector": spent_us(lambda text: detector.find(text, detector.types), "c"),
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parent.parent.parent / "shared" / "data")
    parser.add_argument("--model", help="an installed spaCy pipeline that knows names")
    args = parser.parse_args(argv)
    path = args.data / FILE
    if not path.is_file() or not installed():
        missing = f"{path} is not there" if not path.is_file() else "requirements-pii.txt is not installed"
        print(f"skipped: {missing}", file=sys.stderr)
        return 2
    rows = rows_of(path)
    detector = PresidioDetector(args.model)
    started = time.perf_counter()
    detector.find("warm", detector.types)
    loaded_s = time.perf_counter() - started
    started = time.process_time()
    found = [detector.find(text, detector.types) for text, _ in rows]
    spent_s = time.process_time() - started
    answers = iter(found)
    report = figures(rows, lambda _: next(answers), frozenset(PersonalDataType(kind).value for kind in detector.types))
    chars = sum(len(text) for text, _ in rows)
    report |= {
        "sentences": len(rows),
        "model": args.model,
        "loaded_s": round(loaded_s, 2),
        "cpu_ms_per_sentence": round(1000 * spent_s / len(rows), 2),
        "cpu_ms_per_1000_chars": round(1_000_000 * spent_s / chars, 1),
        "per_log_record_us": per_log_record(detector),
        "built_in_masking": built_in(rows),
    }
    json.dump(report, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
