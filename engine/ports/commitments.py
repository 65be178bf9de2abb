"""What turns the hash of content into a commitment that says nothing once the run's key is gone."""

from __future__ import annotations

from typing import Protocol


class Committer(Protocol):
    """The keyed hash of one run."""

    @property
    def key_id(self) -> str:
        """Which key it is, without telling it."""
        ...

    def name(self, sha256: str) -> str:
        """The commitment to content with this SHA-256, as 64 hex digits; the same again for the same content of the same run."""
        ...


class Commitments(Protocol):
    """Keyed hashes by tenant and run."""

    async def get(self, tenant_id: str, run_id: str) -> Committer:
        """That of a run, made with its first use. Raises ``LivoaError``: ``payload.erased`` (410) once its key is destroyed, and
        what keeps the keys raises."""
        ...


class PlainCommitter:
    """The hash itself, where nothing is encrypted."""

    key_id = ""

    def name(self, sha256: str) -> str:
        """See ``Committer``."""
        return sha256


class NoCommitments:
    """Where nothing is encrypted."""

    async def get(self, tenant_id: str, run_id: str) -> Committer:
        """See ``Commitments``."""
        return PlainCommitter()
