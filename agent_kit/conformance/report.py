"""What the suite found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pass", "fail", "not_applicable"]


@dataclass(frozen=True, slots=True)
class Result:
    """One check: its stable name, how it went, and what was seen when that is not what the contract says."""

    name: str
    status: Status
    detail: str = ""


@dataclass(slots=True)
class Report:
    """All results in order. ``ok`` when nothing failed and something was checked."""

    url: str
    capability: str | None
    results: list[Result] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the agent keeps the contract, as far as it was checked."""
        return self.count("fail") == 0 and self.count("pass") > 0

    def count(self, status: Status) -> int:
        """How many checks went so."""
        return sum(result.status == status for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        counts = {status: self.count(status) for status in ("pass", "fail", "not_applicable")}
        results = [{"name": one.name, "status": one.status, "detail": one.detail} for one in self.results]
        return {"url": self.url, "capability": self.capability, "ok": self.ok, "counts": counts, "results": results}


def words(report: Report) -> str:
    """The report for people."""
    marks = {"pass": "ok  ", "fail": "FAIL", "not_applicable": "-   "}
    lines = [f"{marks[one.status]}  {one.name}" + (f": {one.detail}" if one.detail else "") for one in report.results]
    verdict = "keeps the contract" if report.ok else "does not keep the contract"
    counted = f"{report.count('pass')} passed, {report.count('fail')} failed"
    return "\n".join(
        [*lines, "", f"{report.url} {verdict}: {counted}, {report.count('not_applicable')} not applicable"]
    )
