"""Tells the log once that policies cannot be used, with their places, and once that they can again."""

from __future__ import annotations

import logging
import threading

from engine.domain.errors import LivoaError

_LOG = logging.getLogger("livoa.policy")
_MAX_TENANTS = 1_000
_MAX_FAULTS = 5
_MAX_WORDS = 2_000
_SHARED = ("platform", "default")


class PolicyTrouble:
    """What has been told, by tenant. A fault that tenants share is told once. One per process; safe to use from threads."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._open: set[str] = set()
        self._lock = threading.Lock()

    def broken(self, tenant_id: str, error: LivoaError) -> None:
        """A tenant's policies cannot be used."""
        words = _words(tenant_id, error)
        with self._lock:
            if self._told.get(tenant_id) == words:
                return
            is_new = words not in self._open
            self._told.pop(tenant_id, None)
            while len(self._told) >= _MAX_TENANTS:
                self._told.pop(next(iter(self._told)))
            self._told[tenant_id] = words
            self._open = self._open.intersection(self._told.values()) | {words}
        if is_new:
            _LOG.error("policies cannot be used, and nothing is allowed by them: %s", words, extra={"code": error.code})

    def mended(self, tenant_id: str) -> None:
        """A tenant's policies can be used. Cheap where they always could."""
        if tenant_id not in self._told:
            return
        with self._lock:
            words = self._told.pop(tenant_id, None)
            # The first to see it mended tells; another one's texts may be the former for seconds more.
            is_first = words in self._open
            self._open.discard(words or "")
        if is_first:
            _LOG.info("policies can be used again, and this is mended: %s", words)


def _words(tenant_id: str, error: LivoaError) -> str:
    faults = error.violations[:_MAX_FAULTS]
    places = [(fault.pointer, fault.message) for fault in faults] or [(error.pointer or "", error.message)]
    whose = "" if places[0][0].startswith(_SHARED) else f"tenant {tenant_id}: "
    return (whose + "; ".join(f"{place}: {message}" if place else message for place, message in places))[:_MAX_WORDS]
