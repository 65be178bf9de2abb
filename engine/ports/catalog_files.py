"""Whether the catalog's files still say what the process loaded. The catalog in use changes with a restart alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from engine.domain.errors import Violation

FilesState = Literal["unwatched", "as_loaded", "changed", "broken"]
"""``as_loaded``: a restart would load the same; ``changed``: another catalog; ``broken``: none, so that it would not start."""


@dataclass(frozen=True, slots=True)
class CatalogFiles:
    """What a look at the files found. ``faults`` are those of ``broken`` files, each naming file and field."""

    state: FilesState = "unwatched"
    faults: tuple[Violation, ...] = ()


class CatalogWatch(Protocol):
    """Looks at the files of the catalog."""

    async def look(self) -> CatalogFiles:
        """What the files say now. Cheap while nothing changes; logs each change of the answer once; never raises."""
        ...


class NoCatalogWatch:
    """The catalog has no files, or nobody looks at them."""

    async def look(self) -> CatalogFiles:
        """See ``CatalogWatch.look``."""
        return CatalogFiles()
