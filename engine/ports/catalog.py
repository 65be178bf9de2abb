"""The catalog: capability manifests and playbooks, versioned as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engine.domain.capability import Capability
from engine.domain.playbook import Playbook


class Catalog(Protocol):
    """Immutable view of the catalog, loaded and checked once at start."""

    @property
    def version(self) -> str:
        """SHA-256 over the canonical form of everything in it."""
        ...

    @property
    def capabilities(self) -> Mapping[str, Capability]:
        """Manifests by name."""
        ...

    @property
    def playbooks(self) -> Mapping[str, Playbook]:
        """Playbooks by name."""
        ...
