"""The sample data: reproducible, small, and with a story that is really in them."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[3] / "catalog" / "samples"
GENERATED = (
    "contoso/media.csv",
    "contoso/sales.csv",
    "contoso/dataset.json",
    "fabrikam/media.csv",
    "fabrikam/sales.csv",
    "fabrikam/dataset.json",
    "truth/contoso.json",
    "truth/fabrikam.json",
    "rates.csv",
)


def digest(root: Path) -> dict[str, str]:
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in GENERATED}


def test_the_script_writes_exactly_the_files_in_the_repository(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SAMPLES / "generate.py", "--out", tmp_path], check=True)
    assert digest(tmp_path) == digest(SAMPLES)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(GENERATED)


def test_the_files_are_small() -> None:
    assert all((SAMPLES / name).stat().st_size < 200_000 for name in GENERATED)


def test_paid_search_really_earned_less_in_the_last_quarter_because_it_saturated() -> None:
    truth = json.loads((SAMPLES / "truth" / "contoso.json").read_text())
    effect = dict(zip(truth["weeks"], truth["channels"]["paid_search"]["contributions"], strict=True))
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    with (SAMPLES / "contoso" / "media.csv").open() as file:
        for row in csv.DictReader(file):
            if row["channel"] == "paid_search" and row["week"] >= "2026-04-01":
                held = sums["Q2" if row["week"] < "2026-07-01" else "Q3"]
                held[0] += float(row["spend"])
                held[1] += effect[row["week"]]
                held[2] += float(row["clicks"])
    (spend, caused, clicks), (spend_before, caused_before, clicks_before) = sums["Q3"], sums["Q2"]
    assert spend > 2 * spend_before
    assert caused / spend < 0.75 * caused_before / spend_before
    assert spend / clicks > 1.2 * spend_before / clicks_before


@pytest.mark.parametrize(("tenant", "weeks", "channels"), [("contoso", 156, 5), ("fabrikam", 104, 4)])
def test_every_week_has_every_channel_and_one_sales_figure(tenant: str, weeks: int, channels: int) -> None:
    with (SAMPLES / tenant / "media.csv").open() as file:
        media = [(row["week"], row["channel"]) for row in csv.DictReader(file)]
    with (SAMPLES / tenant / "sales.csv").open() as file:
        sales = [row["week"] for row in csv.DictReader(file)]
    assert len(sales) == weeks
    assert len(set(media)) == len(media) == weeks * channels


def test_one_brief_carries_an_instruction_for_whoever_reads_it() -> None:
    pages = {path.stem: path.read_text() for path in (SAMPLES / "contoso" / "briefs").glob("*.md")}
    assert len(pages) == 12
    assert [name for name, page in pages.items() if "Ignore all previous instructions" in page] == [
        "2026-09-agency-forward"
    ]
