"""Checkpoints of audit chains: who signs them, where they are anchored, and the door through which they are made.

Signer and anchors belong into other hands than the audit store: the signer signs whatever chain is sound, so whoever can write
the store and remove anchors can rewrite the past, though not its time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from engine.domain.checkpoint import Anchor, Checkpoint
from engine.domain.errors import LivoaError

T = TypeVar("T")


class Signer(Protocol):
    """Holds a P-256 key that does not leave it."""

    async def key_id(self) -> str:
        """The RFC 7638 thumbprint of the key that signs now."""
        ...

    async def sign(self, data: bytes, key_id: str) -> bytes:
        """The ES256 signature over ``data`` by that key, which ``key_id`` has named: r and s, 32 bytes each, big-endian.

        Raises on any failure; ``key_id`` may name another key then, as when this one has been disabled meanwhile.
        """
        ...

    async def public_pem(self) -> bytes:
        """Every key that has signed here and may still be believed, as PEM blocks."""
        ...


async def with_current_key(signer: Signer, work: Callable[[str], Awaitable[T]]) -> T:
    """What ``work`` makes with the id of the key that signs now. Once more when it fails and another key signs by then."""
    key_id = await signer.key_id()
    try:
        return await work(key_id)
    except LivoaError:
        another = await signer.key_id()
        if another == key_id:
            raise
        return await work(another)


class Anchors(Protocol):
    """Signed checkpoints, write-once. No update, no delete."""

    async def put(self, tenant_id: str, anchor: Anchor) -> bool:
        """Keep the anchor durably. False, and nothing changes, when one of this number is there already."""
        ...

    async def latest(self, tenant_id: str) -> Anchor | None:
        """The one with the highest number."""
        ...

    async def read(self, tenant_id: str, *, after: int, limit: int) -> tuple[Anchor, ...]:
        """Those with ``number > after`` in order."""
        ...


class Checkpoints(Protocol):
    """Makes checkpoints and shows them."""

    async def make(self, tenant_id: str) -> Checkpoint | None:
        """Sign and anchor the chain as it stands; the latest checkpoint when it covers everything already, None for an empty
        chain.

        Raises ``LivoaError``: ``checkpoint.chain_broken`` when the chain is no longer what was anchored,
        ``checkpoint.anchor_missing`` when an anchor that the chain tells of is gone, ``checkpoint.signature_invalid`` or
        ``checkpoint.anchor_misplaced`` for a last anchor that is not of here, ``checkpoint.contended``, or what signer and
        anchors raise.
        """
        ...

    async def read(self, tenant_id: str, *, after: int, limit: int) -> tuple[Anchor, ...]:
        """The signed checkpoints with ``number > after`` in order."""
        ...


class NoCheckpoints:
    """For hosts that make none: the chain alone holds, up to a head noted elsewhere."""

    async def make(self, tenant_id: str) -> Checkpoint | None:
        """None: nothing is made."""
        return None

    async def read(self, tenant_id: str, *, after: int, limit: int) -> tuple[Anchor, ...]:
        """There are none."""
        return ()
