"""Masking of texts that leave for logs, spans and error messages: the last line behind the rule that no content goes
there.

What is written there is ours (codes, ids, fixed sentences), so this looks only for what has an unmistakable form:
tokens and other secrets, addresses of persons, card and account numbers. Built in, because it has to be there without
any extra, and cheap: one pass of bounded patterns over at most ``MAX_CHARS`` (milliseconds at the very worst); longer
texts are cut. Texts seen lately are remembered.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_CHARS = 2_000

_NAMED = r"\b(?:sig|password|pwd|accountkey|sharedaccesskey|client_secret|api[_-]?key)="
_PATTERNS = (
    ("token", r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*"),
    ("token", r"(?i:\bbearer\s+)[A-Za-z0-9._~+/-]{8,}=*"),
    ("secret", rf"(?i:{_NAMED}|(?<=[?&])code=)[^\s&;\"']{{4,}}"),
    ("secret", r"(?<=://)[^\s/@:]{1,200}:[^\s/@]{1,200}(?=@)"),
    ("email", r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"),
    ("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    ("card", r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w.-])"),
    ("ssn", r"(?<![\w.-])\d{3}-\d{2}-\d{4}(?![\w.-])"),
    ("phone", r"(?<![\w.])\+\d(?:[ ().-]{0,2}\d){7,14}(?!\w)"),
)
_ANY = re.compile("|".join(f"(?P<{name}{number}>{pattern})" for number, (name, pattern) in enumerate(_PATTERNS)))
_DIGITS_LEFT_OUT = re.compile(r"[ -]")


@lru_cache(maxsize=4_096)
def mask(text: str) -> str:
    """The text with everything of an unmistakable form replaced by ``[redacted: …]``, and cut at ``MAX_CHARS``."""
    if len(text) > MAX_CHARS:
        text = f"{text[:MAX_CHARS]}…"
    return _ANY.sub(_replace, text)


def _replace(match: re.Match[str]) -> str:
    kind = (match.lastgroup or "").rstrip("0123456789")
    found = match.group()
    if (kind == "card" and not _is_card(found)) or (kind == "iban" and not _is_iban(found)):
        return found
    return f"[redacted: {kind}]"


def _is_card(text: str) -> bool:
    """The check digit of card numbers (Luhn)."""
    digits = [int(one) for one in reversed(_DIGITS_LEFT_OUT.sub("", text))]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """The check digits of account numbers (ISO 7064, modulo 97)."""
    plain = text.replace(" ", "")
    number = "".join(str(int(one, 36)) for one in plain[4:] + plain[:4])
    return int(number) % 97 == 1
