"""The Merkle tree hash of RFC 6962 section 2.1, grown leaf by leaf in logarithmic space.

Leaves arrive hashed: the hash of an audit record *is* its leaf hash, SHA-256 over 0x00 and the record. Inner nodes are SHA-256
over 0x01 and the two below, so that no node can pass for a record. Inclusion proofs are not made here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

NODE_PREFIX = b"\x01"


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


class MerkleTree:
    """A tree over leaf hashes. Keeps only the roots of its perfect subtrees: one per bit that is set in ``size``."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        """The empty tree, or the one of ``size`` leaves with these ``peaks``. Raises ``ValueError`` when they do not fit."""
        self._size, self._peaks = size, list(peaks)
        if size < 0 or len(self._peaks) != size.bit_count():
            raise ValueError("a tree has one peak per bit that is set in its size")

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, largest first."""
        return tuple(self._peaks)

    def add(self, leaf: bytes) -> None:
        """Append a leaf, given its hash."""
        carried, size = leaf, self._size
        while size & 1:
            carried, size = node_hash(self._peaks.pop(), carried), size >> 1
        self._peaks.append(carried)
        self._size += 1

    def root(self) -> bytes:
        """The tree's hash; that of no leaves is the SHA-256 of nothing."""
        if not self._peaks:
            return hashlib.sha256().digest()
        folded = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            folded = node_hash(peak, folded)
        return folded
