"""A checkpoint: what somebody with a signing key saw of a tenant's audit chain, in a form that fits into a few hundred bytes.

It commits to every record up to ``size`` by the root of a Merkle tree, and to the checkpoint before it by that one's hash. Where
it is kept once it is signed, and by whom, is the business of the ports ``Anchors`` and ``Signer``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from engine.domain.audit import GENESIS_HASH
from engine.domain.base import Frozen, UtcDatetime
from engine.domain.ids import WireId

NO_CHECKPOINT = GENESIS_HASH
"""``prev`` of a tenant's first checkpoint."""
MAX_PEAKS = 64

Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Checkpoint(Frozen):
    """The chain of ``tenant_id`` as it stood when it held ``size`` records.

    ``number`` counts from 1 without gaps per tenant; ``head`` is the hash of record ``size``; ``root`` is the Merkle tree hash of
    RFC 6962 over records 1 to ``size``, and ``peaks`` are the roots of its perfect subtrees, largest first, from which the tree
    can be grown without the records; ``prev`` is the SHA-256 of the signed checkpoint before.
    """

    v: Literal[1] = 1
    tenant_id: WireId
    number: int = Field(ge=1)
    size: int = Field(ge=1)
    head: Sha256Hex
    root: Sha256Hex
    peaks: tuple[Sha256Hex, ...] = Field(min_length=1, max_length=MAX_PEAKS)
    at: UtcDatetime
    prev: Sha256Hex


@dataclass(frozen=True, slots=True)
class Anchor:
    """A signed checkpoint as it is kept: its number, and the compact JWS (RFC 7515)."""

    number: int
    jws: str

    @property
    def sha256(self) -> str:
        """What the next checkpoint names as ``prev``."""
        return hashlib.sha256(self.jws.encode()).hexdigest()
