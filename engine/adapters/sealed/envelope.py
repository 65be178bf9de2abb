"""One encrypted object: a header with version, key id and nonce, then AES-256-GCM over the content. Pure.

What the tag covers besides the content: the header, the tenant, the run and the object's name, so that nothing can be moved to
another run, given another name, or read as another version. The name is a keyed hash of the content (``RunSecrets.name``): it
says nothing about the content to whoever does not have the run's key.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.adapters.payload_rules import payload_corrupt

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"LVOA\x01"
"""Four letters and the version of the layout."""
KEY_ID_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
HEADER_BYTES = len(MAGIC) + KEY_ID_BYTES + NONCE_BYTES
OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES
DATA_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class RunSecrets:
    """What is derived from a run's data key; each use has a key of its own."""

    tenant_id: str
    run_id: str
    key_id: str
    content_key: bytes = field(repr=False)
    name_key: bytes = field(repr=False)
    link_key: bytes = field(repr=False)

    @classmethod
    def of(cls, tenant_id: str, run_id: str, key_id: str, data_key: bytes) -> RunSecrets:
        """The secrets of one run."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

        def derived(use: bytes) -> bytes:
            return HKDFExpand(SHA256(), DATA_KEY_BYTES, b"livoa/run-key/1/" + use).derive(data_key)

        return cls(tenant_id, run_id, key_id, derived(b"content"), derived(b"name"), derived(b"link"))

    def name(self, sha256: str) -> str:
        """What content with this hash is called outside: a keyed hash of it, as 64 hex digits."""
        return hmac.digest(self.name_key, bytes.fromhex(sha256), "sha256").hex()


def seal(secrets_of_run: RunSecrets, name: str, data: bytes) -> bytes:
    """``data`` as it is stored under ``name``."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    header = MAGIC + bytes.fromhex(secrets_of_run.key_id) + nonce
    return header + _cipher(secrets_of_run).encrypt(nonce, data, _covered(secrets_of_run, header, name))


def open_sealed(secrets_of_run: RunSecrets, name: str, stored: bytes) -> bytes:
    """The content of an object. Raises ``LivoaError("payload.corrupt")`` (500) for anything that was not sealed under this key
    and name."""
    from cryptography.exceptions import InvalidTag

    header, sealed = stored[:HEADER_BYTES], stored[HEADER_BYTES:]
    if len(stored) < OVERHEAD_BYTES or not header.startswith(MAGIC + bytes.fromhex(secrets_of_run.key_id)):
        raise payload_corrupt(name)
    try:
        return _cipher(secrets_of_run).decrypt(header[-NONCE_BYTES:], sealed, _covered(secrets_of_run, header, name))
    except InvalidTag as err:
        raise payload_corrupt(name) from err


def _cipher(secrets_of_run: RunSecrets) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(secrets_of_run.content_key)


def _covered(secrets_of_run: RunSecrets, header: bytes, name: str) -> bytes:
    # Neither ids nor names hold a line break, so no two sets of them make the same text.
    place = f"\n{secrets_of_run.tenant_id}\n{secrets_of_run.run_id}\n{name}"
    return header + place.encode()
