"""Finding personal data in text. A detector has misses: it is never the only barrier, and its absence is never a yes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from engine.domain.personal_data import Found, PersonalDataType


class PersonalDataDetector(Protocol):
    """Looks through a text. Blocking, and costs processor time: call it in a thread, with bounded text."""

    @property
    def types(self) -> frozenset[PersonalDataType]:
        """What it can find. Cheap: loads nothing. Empty when no detector is installed."""
        ...

    def find(self, text: str, types: Collection[PersonalDataType]) -> list[Found]:
        """Every piece of these types, in any order. Raises when it cannot look; whoever asks must then refuse."""
        ...


class NoDetector:
    """No detector is installed: it can find nothing, and says so."""

    @property
    def types(self) -> frozenset[PersonalDataType]:
        """Nothing."""
        return frozenset()

    def find(self, text: str, types: Collection[PersonalDataType]) -> list[Found]:
        """Raises: nobody may take silence for cleanliness."""
        raise LookupError("no detector of personal data is installed")
