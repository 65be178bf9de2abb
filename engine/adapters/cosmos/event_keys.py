"""Which event keys each run's log has, as far as this process knows without asking.

A process that has seen all events of a run up to its last one knows every key there is, so a write of its own needs no query.
What others have written meanwhile is read up by the ids of their documents, which are the numbers of their first events; a longer
backlog is one query. Nothing is believed that the run's own document, read in the same attempt, does not bear out.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from engine.adapters.cosmos.repository import Document, Find, TenantRepository

MAX_RUNS = 256
"""Runs whose keys are held at once; the one not written to for longest goes first."""
MAX_KEYS = 10_000
"""Keys of one run; a longer log is asked."""
MAX_HELD = 100_000
"""Keys of all runs together: some ten megabytes."""
FEW_EVENTS = 4
"""So many events of others are read up one document after the other."""
_MOST = 1_000


@dataclass(slots=True)
class _Known:
    last_seq: int = 0
    keys: set[str] = field(default_factory=set)


class EventKeys:
    """Keys of events by tenant and run. To be used while the run's lock is held."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    async def of(self, repository: TenantRepository, tenant_id: str, run_id: str, last_seq: int) -> set[str] | None:
        """All keys of a run whose last event has this number, or None when they are too many to hold."""
        known = self._runs.setdefault((tenant_id, run_id), _Known())
        self._runs.move_to_end((tenant_id, run_id))
        while len(self._runs) > 1 and (len(self._runs) > MAX_RUNS or self._held() > MAX_HELD):
            self._runs.popitem(last=False)
        if last_seq > MAX_KEYS or known.last_seq > last_seq:
            self._runs.pop((tenant_id, run_id), None)
            return None
        while known.last_seq < last_seq:
            before = known.last_seq
            if last_seq - before <= FEW_EVENTS:
                found = await repository.read(run_id, events_id(before + 1))
                documents = [found] if found is not None else []
            else:
                query = Find("c.kind = 'events' AND c.seq > @seq", {"seq": before}, _MOST, ("seq",), fields=_FIELDS)
                documents = await repository.find(query, run_id)
            for document in documents:
                _take(known, document)
            if known.last_seq == before:
                self._runs.pop((tenant_id, run_id), None)  # not as it should be: whoever is asked knows better
                return None
        return known.keys

    def _held(self) -> int:
        return sum(len(known.keys) for known in self._runs.values())

    def written(self, tenant_id: str, run_id: str, first_seq: int, keys: list[str]) -> None:
        """A write of this process put these into the log."""
        known = self._runs.get((tenant_id, run_id))
        if known is not None and known.last_seq + 1 == first_seq:
            known.keys.update(keys)
            known.last_seq += len(keys)


_FIELDS = ("kind", "seq", "lastSeq", "eventKeys")


def events_id(first_seq: int) -> str:
    """The id of the document of a write whose first event has this number."""
    return f"events:{first_seq:010d}"


def _take(known: _Known, document: Document) -> None:
    if document["seq"] == known.last_seq + 1:
        known.keys.update(document["eventKeys"])
        known.last_seq = document["lastSeq"]
