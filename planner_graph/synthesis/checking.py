"""One piece of a model's text made fit to be shown: links filtered, figures held against the outputs, sources named. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from planner_graph.synthesis.figures import Evidence, figures_of

CleanLinks = Callable[[str, Collection[str]], tuple[str, int]]
"""(text, allowed hosts) to (text without other links and images, how many were removed)."""

UNSUPPORTED_MARK = " (not in the results)"
_CITATION = re.compile(r"\[([A-Za-z0-9._-]{1,100}(?:, ?[A-Za-z0-9._-]{1,100}){0,9})\](?!\()")
_TAIL = re.compile(r"[\s.!?:;,|*_)]*\Z")


@dataclass(slots=True)
class Findings:
    """What was seen in the pieces of one text so far."""

    cited: set[str] = field(default_factory=set)
    unsupported: list[str] = field(default_factory=list)
    removed_links: int = 0


class Checker:
    """Checks the pieces of one text in turn and remembers what it found."""

    def __init__(
        self, evidence: Evidence, step_ids: Collection[str], link_hosts: Collection[str], clean: CleanLinks
    ) -> None:
        self._evidence = evidence
        self._step_ids = frozenset(step_ids)
        self._link_hosts = link_hosts
        self._clean = clean
        self.findings = Findings()

    def check(self, piece: str) -> str:
        """The piece as it may be shown.

        A figure that no output bears out is marked. One that an output bears out, in a piece that does not name that step,
        gets the step named at the end of the piece. A citation of a step that does not exist is taken out.
        """
        cleaned, removed = self._clean(piece, self._link_hosts)
        cited: set[str] = set()
        text = _CITATION.sub(lambda match: self._citation(match, cited), cleaned)
        if text != cleaned:
            # What stood on both sides of a citation may make up an address now that it is out.
            text, again = self._clean(text, self._link_hosts)
            removed += again
        self.findings.removed_links += removed
        text, wanted = self._mark(text, cited)
        self.findings.cited |= cited | wanted
        if not wanted:
            return text
        tail = _TAIL.search(text)
        at = tail.start() if tail is not None else len(text)
        return f"{text[:at]} [{', '.join(sorted(wanted))}]{text[at:]}"

    def _citation(self, match: re.Match[str], cited: set[str]) -> str:
        names = [name.strip() for name in match[1].split(",")]
        known = [name for name in names if name in self._step_ids]
        cited.update(known)
        if len(known) == len(names):
            return match[0]
        return f"[{', '.join(known)}]" if known else ""

    def _mark(self, text: str, cited: set[str]) -> tuple[str, set[str]]:
        """The text with marks behind figures that nothing bears out, and one step for each figure that lacks its source."""
        wanted: set[str] = set()
        marked, done = [], 0
        citations = [match.span() for match in _CITATION.finditer(text)]
        for figure in figures_of(text):
            if any(start <= figure.start < end for start, end in citations):
                continue
            sources = self._evidence.sources(figure)
            if sources is None:
                self.findings.unsupported.append(figure.text)
                marked.append(text[done : figure.end] + UNSUPPORTED_MARK)
                done = figure.end
            elif sources and not (cited | wanted) & set(sources):
                wanted.add(sources[0])
        return "".join(marked) + text[done:], wanted
