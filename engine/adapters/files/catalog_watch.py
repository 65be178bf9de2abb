"""Looks whether the files of the catalog still say what was loaded, and tells the log when that changes.

The catalog is loaded once, because plans, policies and runs refer to its version; a page that breaks while the host runs would
otherwise be noticed when the host starts the next time, and does not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

from engine.adapters.files.catalog import FilesCatalog, catalog_states
from engine.adapters.files.pages import FileState
from engine.domain.errors import LivoaError, Violation
from engine.ports.catalog_files import CatalogFiles
from engine.ports.clock import Clock

LOOK_AGAIN_AFTER_S = 2.0
"""How long an answer holds before the files are looked at again."""
LOOK_S = 5.0
"""How long a look may keep whoever asks: readiness and the sweep do not hang with a share that hangs."""
_MAX_FAULTS = 50
_MAX_WORDS = 5

_Seen = tuple[tuple[tuple[FileState, ...], ...] | None, CatalogFiles]

_LOG = logging.getLogger("livoa.catalog")


class FilesCatalogWatch:
    """Implements ``CatalogWatch`` for the catalog that was loaded from ``root``. One per process."""

    def __init__(self, root: Path, loaded: FilesCatalog, clock: Clock) -> None:
        self._root, self._clock = root, clock
        self._version = loaded.version
        self._files: tuple[tuple[FileState, ...], ...] | None = loaded.files
        self._found = CatalogFiles("as_loaded")
        self._looked_at: datetime | None = None
        self._looking: Future[_Seen] | None = None

    async def look(self) -> CatalogFiles:
        """See ``CatalogWatch.look``."""
        now, before = self._clock.now(), self._looked_at
        # The lower bound: after a clock was set back, "not yet" could last for hours.
        if before is not None and timedelta() <= now - before < timedelta(seconds=LOOK_AGAIN_AFTER_S):
            return self._found
        self._looked_at = now
        try:
            async with asyncio.timeout(LOOK_S):
                files, found = await self._seen()
        except TimeoutError:
            _LOG.warning("the files of the catalog cannot be looked at: their folder does not answer")
            return self._found
        # Kept only here: whoever is cancelled meanwhile has noticed nothing, and the next look tells it.
        self._files = files
        if found != self._found:
            self._found = found
            _tell(found)
        return found

    async def _seen(self) -> _Seen:
        """A look in a thread of its own: one that hangs is the only one, and takes no thread that others need."""
        if self._looking is None or self._looking.done():
            looking: Future[_Seen] = Future()
            looking.set_running_or_notify_cancel()  # who waits for it may go, and it goes on
            Thread(target=lambda: _settle(looking, self._look), name="catalog", daemon=True).start()
            self._looking = looking
        return await asyncio.wrap_future(self._looking)

    def _look(self) -> _Seen:
        """The states of the files (None: whatever comes next is to be read), and what they come to."""
        files = None
        try:
            files = catalog_states(self._root)
            if files == self._files:
                return files, self._found
            version = FilesCatalog(self._root).version
        except LivoaError as err:
            return files, CatalogFiles("broken", tuple(err.violations[:_MAX_FAULTS]))
        except OSError as err:
            fault = Violation(code="catalog.page_invalid", pointer="", message=f"cannot be read: {err.strerror}")
            return None, CatalogFiles("broken", (fault,))
        return files, CatalogFiles("as_loaded" if version == self._version else "changed")


def _settle(looking: Future[_Seen], look: Callable[[], _Seen]) -> None:
    try:
        looking.set_result(look())
    except BaseException as err:
        looking.set_exception(err)


def _tell(found: CatalogFiles) -> None:
    match found.state:
        case "broken":
            words = "; ".join(f"{fault.pointer}: {fault.message}" for fault in found.faults[:_MAX_WORDS])
            _LOG.error(
                "the files of the catalog are broken; what was loaded at start stays in use, but the next start would fail: %s",
                words,
                extra={"code": "catalog.invalid"},
            )
        case "changed":
            _LOG.warning(
                "the files of the catalog have changed; the catalog loaded at start stays in use until a restart"
            )
        case _:
            _LOG.info("the files of the catalog say again what was loaded at start")
