"""Links as short texts: what they are for in 50 bytes, and 16 bytes of HMAC-SHA-256 over that, the tenant and the run.

The key of it is derived from the run's data key, so no other secret is kept, no link can be moved to another run, and all links
of a run end when its key is destroyed. The object is named by its commitment, which says nothing about the content.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import struct
from datetime import datetime

from engine.adapters.sealed.envelope import RunSecrets
from engine.adapters.sealed.keyring import RunKeyring
from engine.domain.errors import LivoaError
from engine.domain.ids import is_wire_id
from engine.domain.run import PayloadRef
from engine.ports.clock import Clock
from engine.ports.payload_links import Linked, MadeLink, link_invalid
from engine.ports.payload_store import PayloadStore

_LAYOUT = struct.Struct(">BBQ8s32s")
"""Version, whether it is JSON, end in seconds since 1970, id, commitment."""
_VERSION = 1
_MAC_BYTES = 16
_TOKEN = re.compile(r"[A-Za-z0-9_-]{88}")
_JSON = "application/json"
_LEADS_NOWHERE = ("payload.erased", "payload.not_found")


class SealedPayloadLinks:
    """Implements ``PayloadLinks`` for content under the keys of ``keyring``, read through ``payloads``."""

    def __init__(self, payloads: PayloadStore, keyring: RunKeyring, clock: Clock) -> None:
        self._payloads, self._keyring, self._clock = payloads, keyring, clock

    async def make(self, tenant_id: str, run_id: str, ref: PayloadRef, expires_at: datetime) -> MadeLink:
        """See ``PayloadLinks.make``."""
        found = await self._keyring.get(tenant_id, run_id)
        link_id, commitment = secrets.token_bytes(8), found.name(ref.sha256)
        is_json, ends = ref.media_type == _JSON, int(expires_at.timestamp())
        claims = _LAYOUT.pack(_VERSION, is_json, ends, link_id, bytes.fromhex(commitment))
        token = base64.urlsafe_b64encode(claims + _mac(found, claims)).decode()
        return MadeLink(token, link_id.hex(), commitment)

    async def follow(self, tenant_id: str, run_id: str, token: str) -> Linked:
        """See ``PayloadLinks.follow``."""
        if not (is_wire_id(tenant_id) and is_wire_id(run_id)):
            raise link_invalid()
        claims, mac = _taken_apart(token)
        try:
            found = await self._keyring.find(tenant_id, run_id)
            if found is None or not hmac.compare_digest(mac, _mac(found, claims)):
                raise link_invalid()
            version, is_json, ends, link_id, commitment = _LAYOUT.unpack(claims)
            if version != _VERSION:
                raise link_invalid()
            if self._clock.now().timestamp() >= ends:
                raise LivoaError("link.expired", "The time of this link is over.", status=410)
            data = (await self._payloads.committed(tenant_id, run_id, commitment.hex())).data
        except LivoaError as err:
            if err.code in _LEADS_NOWHERE:
                raise link_invalid() from err
            raise
        return Linked(data, bool(is_json), link_id.hex(), commitment.hex())


def _taken_apart(token: str) -> tuple[bytes, bytes]:
    if not _TOKEN.fullmatch(token):
        raise link_invalid()
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except binascii.Error as err:
        raise link_invalid() from err
    return raw[: _LAYOUT.size], raw[_LAYOUT.size :]


def _mac(found: RunSecrets, claims: bytes) -> bytes:
    # Ids hold no line break, so no two sets of them make the same text.
    covered = claims + f"\n{found.tenant_id}\n{found.run_id}".encode()
    return hmac.new(found.link_key, covered, hashlib.sha256).digest()[:_MAC_BYTES]
