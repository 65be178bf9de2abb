"""Collecting what is wrong with a plan: everything at once, in order of place, and not without bound."""

from __future__ import annotations

from engine.domain.errors import Violation
from engine.domain.strict_json import Place, pointer_of

MAX_FINDINGS = 1_000
"""Beyond this many errors (or warnings) the rest is counted, not listed."""


class Findings:
    """Errors and warnings found so far."""

    def __init__(self) -> None:
        self._errors: list[Violation] = []
        self._warnings: list[Violation] = []
        self._unlisted_errors = 0
        self._unlisted_warnings = 0

    def error(self, code: str, place: Place, message: str) -> None:
        """Note something that makes the plan unacceptable."""
        if len(self._errors) < MAX_FINDINGS:
            self._errors.append(Violation(code=code, pointer=pointer_of(place), message=message))
        else:
            self._unlisted_errors += 1

    def warn(self, code: str, place: Place, message: str) -> None:
        """Note something the author should know and that is accepted."""
        if len(self._warnings) < MAX_FINDINGS:
            self._warnings.append(Violation(code=code, pointer=pointer_of(place), message=message))
        else:
            self._unlisted_warnings += 1

    @property
    def failed(self) -> bool:
        """True when there is any error."""
        return bool(self._errors)

    def errors(self) -> tuple[Violation, ...]:
        """All errors, each once, sorted by pointer; last ``plan.more_errors`` when some are not listed."""
        return _listed(self._errors, self._unlisted_errors, "plan.more_errors")

    def warnings(self) -> tuple[Violation, ...]:
        """All warnings, likewise; last ``plan.more_warnings``."""
        return _listed(self._warnings, self._unlisted_warnings, "plan.more_warnings")


def _listed(found: list[Violation], unlisted: int, more: str) -> tuple[Violation, ...]:
    distinct = {(violation.pointer, violation.code, violation.message): violation for violation in found}
    ordered = sorted(distinct.values(), key=_sort_key)
    if unlisted:
        ordered.append(Violation(code=more, pointer="", message=f"{unlisted} more are not listed"))
    return tuple(ordered)


def _sort_key(violation: Violation) -> tuple[list[tuple[int, int, str]], str]:
    """Array indexes sort as numbers: ``/steps/9`` comes before ``/steps/10``."""
    tokens = violation.pointer.split("/")[1:]
    return (
        [(0, int(token), "") if token.isdecimal() and len(token) < 16 else (1, 0, token) for token in tokens],
        violation.code,
    )
