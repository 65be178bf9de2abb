"""Bounds on policy text, checked before the parser sees it, because nesting can end the process that parses.

The parser descends once per bracket, per unary operator and per ``if``, and has no limit of its own: about 800 nested brackets
overflow its stack. This is no parser: it only reads tokens well enough to count, and counts too much rather than too little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_TEXT_BYTES = 2 * 1024 * 1024
"""Of all policies of one layer together."""

MAX_POLICY_BYTES = 10 * 1024
MAX_DEPTH = 50
MAX_OPERATORS_IN_A_ROW = 4
"""``!!!!x``: the language itself allows four."""

MAX_IFS = 50
"""In one policy. An ``if`` in an ``else`` nests without brackets, so all of them count."""

MAX_TERMS = 50
"""``&&`` and ``||`` in one policy: chains of them nest in the parsed form, whose reader stops at 128 levels."""


@dataclass(frozen=True, slots=True)
class TextFault:
    """Why a text is not parsed: a stable code, words, and the line (from 1)."""

    code: str
    message: str
    line: int


_ODD = re.compile(r"[^\t\n\r -~]|\r(?!\n)")
# A carriage return alone ends a line for some readers and not for others, so what is a comment would depend on the reader.
_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*)
      | (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<open>[(\[{])
      | (?P<close>[)\]}])
      | (?P<unary>[!-])
      | (?P<joint>&&|\|\|)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<end>;)
      | (?P<space>\s+)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(slots=True)
class _Count:
    depth: int = 0
    ifs: int = 0
    joints: int = 0
    unary: int = 0
    start: int = 0


def guard_text(text: str, *, max_bytes: int = MAX_TEXT_BYTES) -> TextFault | None:
    """The first bound the text breaks, or None. Linear in its length."""
    if len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        return TextFault("policy.too_large", f"policy text has at most {max_bytes} bytes", 1)
    odd = _ODD.search(text)
    if odd is not None:
        message = f"U+{ord(odd.group()):04X} is not plain ASCII; look-alike letters make one name look like another"
        return TextFault("policy.not_ascii", message, _line(text, odd.start()))
    count = _Count()
    for token in _TOKEN.finditer(text):
        fault = _advance(count, token)
        if fault is not None:
            return TextFault(fault[0], fault[1], _line(text, token.start()))
    if len(text) - count.start > MAX_POLICY_BYTES:
        return TextFault("policy.too_large", f"a policy has at most {MAX_POLICY_BYTES} bytes", _line(text, count.start))
    return None


def policy_lines(text: str) -> list[int]:
    """The line each policy begins on, in the order of the text, which was accepted by the parser."""
    lines: list[int] = []
    depth, begun = 0, False
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind in ("space", "comment"):
            continue
        if not begun:
            lines.append(_line(text, token.start()))
            begun = True
        depth += (kind == "open") - (kind == "close")
        if kind == "end" and depth == 0:
            begun = False
    return lines


def _advance(count: _Count, token: re.Match[str]) -> tuple[str, str] | None:
    kind = token.lastgroup
    if kind == "unary":
        count.unary += 1
    elif kind not in ("space", "comment"):
        count.unary = 0
    if kind == "open":
        count.depth += 1
    elif kind == "close":
        count.depth = max(0, count.depth - 1)
    elif kind == "joint":
        count.joints += 1
    elif kind == "word" and token.group() == "if":
        count.ifs += 1
    elif kind == "end" and count.depth == 0:
        if token.end() - count.start > MAX_POLICY_BYTES:
            return "policy.too_large", f"a policy has at most {MAX_POLICY_BYTES} bytes"
        count.start, count.ifs, count.joints = token.end(), 0, 0
    return _broken(count)


def _broken(count: _Count) -> tuple[str, str] | None:
    if count.depth > MAX_DEPTH:
        return "policy.too_deep", f"brackets nest at most {MAX_DEPTH} deep"
    if count.ifs > MAX_IFS:
        return "policy.too_deep", f"a policy has at most {MAX_IFS} ifs"
    if count.joints > MAX_TERMS:
        return "policy.too_deep", f"a policy joins at most {MAX_TERMS} conditions"
    if count.unary > MAX_OPERATORS_IN_A_ROW:
        return "policy.too_deep", f"at most {MAX_OPERATORS_IN_A_ROW} operators in a row"
    return None


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
