"""Policy sets by their hash, one JSON file each, so that a run outlives a restart under the policies it was vetted with.

Written once and never changed; a file that cannot be read or written is as good as none, because whoever misses a set falls back
to the policies of today. The reader checks that the hash fits.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from pathlib import Path

from engine.domain.base import JsonObject

_LOG = logging.getLogger("livoa.policy")
_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES = 16 * 1024 * 1024
MAX_SETS = 500
"""Oldest sets go when there are more."""


class FilesPolicyArchive:
    """Implements ``policy.library.PolicyArchive`` over a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, set_hash: str) -> JsonObject | None:
        """The policies under this hash, or None."""
        if _HASH.fullmatch(set_hash) is None:
            return None
        path = self._folder / f"{set_hash}.json"
        try:
            if path.stat().st_size > _MAX_BYTES:
                return None
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, set_hash: str, policies: JsonObject) -> None:
        """Keep policies under their hash, whole or not at all."""
        path = self._folder / f"{set_hash}.json"
        if _HASH.fullmatch(set_hash) is None or path.exists():
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, suffix=".part", delete=False) as file:
                json.dump(policies, file)
            Path(file.name).replace(path)
            self._forget_oldest()
        except OSError:
            _LOG.warning("policies could not be archived", extra={"code": "policy.archive_unavailable"})

    def _forget_oldest(self) -> None:
        sets = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in sets[:-MAX_SETS]:
            path.unlink(missing_ok=True)
