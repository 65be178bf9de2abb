"""Text for terminals: what comes from a run is cleaned of control characters before it is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
STATUS_MARK = {
    "pending": "·", "waiting": "…", "running": "▶", "succeeded": "✓", "failed": "✗", "denied": "⊘", "skipped": "↷",
    "cancelled": "■", "partial": "◐",
}  # fmt: skip
STATUS_STYLE = {
    "succeeded": "green", "running": "cyan", "failed": "red", "denied": "red", "partial": "yellow", "skipped": "dim",
    "pending": "dim", "cancelled": "yellow", "terminated": "yellow",
}  # fmt: skip


def clean(value: Any) -> str:
    """Text without control characters and direction overrides: an answer must not be able to drive the terminal."""
    return _CONTROL.sub("", str(value))


def duration(milliseconds: int | None) -> str:
    """`850 ms`, `2.4 s`, `3 min 05 s`; a dash when there is none."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def number(value: Any) -> str:
    """A figure for people: thousands grouped, at most four significant decimals; other values as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return clean(value)
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:,.4g}"


_PERCENTAGES = {"fraction": "{:.1%}", "change": "{:+.1%}"}


def figure(value: Any, unit: str) -> str:
    """A cell of a table: a percentage where its unit is ``fraction`` or ``change``, else as ``number``; empty for none."""
    if value is None:
        return ""
    is_figure = isinstance(value, int | float) and not isinstance(value, bool)
    return _PERCENTAGES[unit].format(value) if is_figure and unit in _PERCENTAGES else number(value)


def headed(column: Any, unit: str) -> str:
    """The head of a column, with its unit where the figures do not show it."""
    return clean(column) + (f" ({clean(unit)})" if unit and unit not in _PERCENTAGES else "")


def one_line(value: Any, width: int | None = None) -> str:
    """Cleaned text on one line, of at most ``width`` characters when given."""
    text = " ".join(clean(value).split())
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def planner_words(facts: Mapping[str, Any]) -> str:
    """Who made a plan: `by model gpt-4o in 2 attempts, routed by lexical (small: model.timeout)`; empty when nobody says."""
    by = next((f"by {kind} {one_line(facts[kind])}" for kind in ("playbook", "model") if facts.get(kind)), "")
    if not by:
        by = "by the caller" if facts.get("source") == "caller" else ""
    if by and (facts.get("attempts") or 1) > 1:
        by += f" in {facts['attempts']} attempts"
    if not facts.get("router"):
        return by
    handed_on = f" ({one_line('; '.join(facts['fallbacks']))})" if facts.get("fallbacks") else ""
    return f"{by}{', ' if by else ''}routed by {one_line(facts['router'])}{handed_on}"


def failure_lines(run: Mapping[str, Any], steps: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why a run and its steps failed: one line for the run, one per step with an error, nothing shortened."""
    told = [("run", run.get("error")), *((f"step {step['id']}", step.get("error")) for step in steps)]
    return [
        f"{STATUS_MARK['failed']} {clean(what)}: {one_line(error.get('code', ''))}: {one_line(error.get('message', ''))}"
        for what, error in told
        if error
    ]


def counted(count: int, noun: str) -> str:
    """`1 call`, `2 calls`, `2 approvals granted`: the first word counts; `denied` is no noun and stays as it is."""
    word, _, rest = noun.partition(" ")
    many = word if count == 1 or word == "denied" else f"{word}s"
    return f"{count} {many} {rest}".rstrip()


def money(micro_usd: int) -> str:
    """An amount as people read it: `0.0004 USD`."""
    return f"{micro_usd / 1_000_000:.6f}".rstrip("0").rstrip(".") + " USD"
