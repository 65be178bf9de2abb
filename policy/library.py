"""Which policies are in force for a tenant, now and when a run was vetted.

Texts are looked at again within seconds (the source's cache) and compiled when they changed. Anything wrong with them, platform's
or tenant's, makes the tenant's policies unavailable: nothing is decided with part of a set. What has been in force is kept by its
hash, so that a run can be held to the policies it was vetted under.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.domain.base import JsonObject
from engine.domain.errors import LivoaError, Violation
from engine.ports.catalog import Catalog
from engine.ports.policy import PolicySource, PolicyState, PolicyText, PolicyTexts
from policy.admission import Admitted, admit, admit_in_child
from policy.book import Book, Words
from policy.cedar import CedarError, PolicySet
from policy.hashes import sha256_of
from policy.rules import Layer, Rule, rule_of
from policy.trouble import PolicyTrouble

UNAVAILABLE = "policy.unavailable"
FAILURE_KEPT_S = 5.0
"""How long a failure to compile is remembered: a child process per decision would be a way to load the machine."""

GUARANTEES = frozenset(
    f"plat.{name}"
    for name in (
        "taint-selector", "taint-control", "pii-egress", "pii-selector", "clearance", "egress-hosts", "egress-untrusted-host",
        "tenant-isolation", "plan-isolation", "steps", "depth", "fan-out", "cost",
    )
)  # fmt: skip
"""The platform's forbids that the promises to tenants stand on. Without one of them nothing is decided: a file that went missing
must not look like a decision to allow. Kill switches and regions are the operator's to edit."""

_MAX_BOOKS = 64
_MAX_LAYERS = 256
_MAX_VIOLATIONS = 50


class PolicyArchive(Protocol):
    """Policies by the hash of their set, written once. Losing it loosens nothing: runs are then held to today's policies."""

    def get(self, set_hash: str) -> JsonObject | None:
        """What was put under this hash, or None."""
        ...

    def put(self, set_hash: str, policies: JsonObject) -> None:
        """Keep policies under their hash. Repeatable."""
        ...


class MemoryPolicyArchive:
    """An archive that lasts as long as the process and keeps the latest sets."""

    def __init__(self, max_sets: int = _MAX_BOOKS) -> None:
        self._kept: OrderedDict[str, JsonObject] = OrderedDict()
        self._max_sets = max_sets

    def get(self, set_hash: str) -> JsonObject | None:
        """See ``PolicyArchive.get``."""
        return self._kept.get(set_hash)

    def put(self, set_hash: str, policies: JsonObject) -> None:
        """See ``PolicyArchive.put``."""
        self._kept[set_hash] = policies
        while len(self._kept) > self._max_sets:
            self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class InForce:
    """Today's policies for a tenant: all of them, and the platform's alone."""

    book: Book
    platform: Book


@dataclass(frozen=True, slots=True)
class _Kept:
    texts: PolicyTexts
    words_hash: str
    until: float
    """Seconds of the monotonic clock up to which a failure holds; success holds until the texts change."""

    found: InForce | LivoaError


class PolicyLibrary:
    """Policies by tenant, compiled. One per process; safe to use from several threads and loops.

    ``required`` are ids of platform policies that must be there (``GUARANTEES`` wherever tenants are served).
    ``trouble`` hears whether policies can be used, each time they are asked for.
    """

    def __init__(
        self,
        source: PolicySource,
        catalog: Catalog,
        archive: PolicyArchive | None = None,
        *,
        required: frozenset[str] = frozenset(),
        trouble: PolicyTrouble | None = None,
    ) -> None:
        self._source = source
        self._required = required
        self._trouble = trouble
        self._catalog = catalog
        self._archive = archive if archive is not None else MemoryPolicyArchive()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._layers: OrderedDict[str, Admitted] = OrderedDict()
        self._pinned: OrderedDict[str, Book] = OrderedDict()
        self._words: tuple[str, Words] | None = None
        self._lock = threading.Lock()

    def words(self) -> Words:
        """The vocabulary of the catalog. Raises ``LivoaError("policy.unavailable")`` when there can be none."""
        kept = self._words
        if kept is None or kept[0] != self._catalog.version:
            try:
                kept = (self._catalog.version, Words.of(self._catalog.capabilities.values()))
            except CedarError as error:
                raise _unavailable([Violation(code=error.code, pointer="", message=str(error))]) from error
            self._words = kept
        return kept[1]

    async def in_force(self, tenant_id: str) -> InForce:
        """Today's policies. Raises ``LivoaError("policy.unavailable")`` (503) with everything that is wrong with them."""
        try:
            found = await self._in_force(tenant_id)
        except LivoaError as error:
            if self._trouble is not None:
                self._trouble.broken(tenant_id, error)
            raise
        if self._trouble is not None:
            self._trouble.mended(tenant_id)
        return found

    async def look(self, tenant_id: str) -> PolicyState:
        """See ``PolicyWatch.look``."""
        try:
            await self.in_force(tenant_id)
        except LivoaError:
            return "broken"
        return "in_force"

    async def _in_force(self, tenant_id: str) -> InForce:
        texts = await self._source.texts(tenant_id)
        kept = self._kept.get(tenant_id)
        if kept is None or not self._holds(kept, texts):
            kept = await asyncio.to_thread(self._compile, tenant_id, texts)
        if isinstance(kept.found, LivoaError):
            raise kept.found
        return kept.found

    def pinned(self, set_hash: str) -> Book | None:
        """The policies that had this hash, or None when they are not known any more."""
        book = self._pinned.get(set_hash)
        if book is not None:
            return book
        found = self._archive.get(set_hash)
        if found is None:
            return None
        try:
            book = Book.of(rule_of(est) for est in found.values())
        except (CedarError, KeyError, TypeError, AttributeError):
            return None
        if book.hash != set_hash:
            return None  # what comes back is not what was put in: better today's policies than a stranger's
        self._remember(book)
        return book

    def _holds(self, kept: _Kept, texts: PolicyTexts) -> bool:
        if kept.texts != texts or kept.words_hash != self.words().hash:
            return False
        return isinstance(kept.found, InForce) or time.monotonic() < kept.until

    def _compile(self, tenant_id: str, texts: PolicyTexts) -> _Kept:
        words = self.words()
        with self._lock:
            kept = self._kept.get(tenant_id)
            if kept is not None and self._holds(kept, texts):
                return kept
            found: InForce | LivoaError
            try:
                found = self._compiled(tenant_id, texts, words)
            except LivoaError as error:
                found = error
            kept = _Kept(texts, words.hash, time.monotonic() + FAILURE_KEPT_S, found)
            self._kept[tenant_id] = kept
            while len(self._kept) > _MAX_LAYERS:
                self._kept.popitem(last=False)
            return kept

    def _compiled(self, tenant_id: str, texts: PolicyTexts, words: Words) -> InForce:
        platform = self._layer(texts.platform, Layer("platform"), words)
        if not platform:
            raise _unavailable([Violation(code="policy.none", pointer="platform", message="there are no policies")])
        missing = sorted(self._required - {rule.id for rule in platform if rule.forbids})
        if missing:
            lost = [Violation(code="policy.missing", pointer=one, message="this forbid is required") for one in missing]
            raise _unavailable(lost)
        if texts.tenant:
            own = self._layer(texts.tenant, Layer("tenant", tenant_id), words)
        else:
            own = self._layer(texts.default, Layer("default"), words)
        try:
            found = InForce(Book.of((*platform, *own)), Book.of(platform))
            PolicySet({rule.id: rule.est for rule in found.book.rules.values()})
        except CedarError as error:
            raise _unavailable([Violation(code=error.code, pointer="", message=str(error))]) from error
        self._archive.put(found.book.hash, {rule.id: rule.est for rule in found.book.rules.values()})
        self._remember(found.book)
        return found

    def _layer(self, files: Sequence[PolicyText], layer: Layer, words: Words) -> tuple[Rule, ...]:
        key = sha256_of([layer.kind, layer.tenant_id, words.hash, [[file.name, file.text] for file in files]])
        admitted = self._layers.get(key)
        if admitted is None:
            door = admit_in_child if layer.kind == "tenant" else admit
            admitted = door(files, layer, words.document, words.agents)
            if not admitted.findings:
                self._layers[key] = admitted
                while len(self._layers) > _MAX_LAYERS:
                    self._layers.popitem(last=False)
        if admitted.findings:
            raise _unavailable(admitted.findings)
        return admitted.rules

    def _remember(self, book: Book) -> None:
        self._pinned[book.hash] = book
        while len(self._pinned) > _MAX_BOOKS:
            self._pinned.popitem(last=False)


def _unavailable(findings: Sequence[Violation]) -> LivoaError:
    first = findings[0]
    words = f"{first.pointer}: {first.message}" if first.pointer else first.message
    return LivoaError(
        UNAVAILABLE,
        f"The policies cannot be used ({len(findings)} faults; {words}).",
        status=503,
        pointer=first.pointer,
        violations=findings[:_MAX_VIOLATIONS],
    )
