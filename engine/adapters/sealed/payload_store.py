"""The payload store: content sealed with its run's key (``envelope``), kept by an object store that knows nothing of it.

References stay what they were, the SHA-256 of the content; objects are named by a keyed hash of that. Content that was written in
the clear by an earlier version lies under its plain hash and is still read; it is written sealed the next time.
"""

from __future__ import annotations

import hashlib

from engine.adapters.payload_objects import PayloadObjects
from engine.adapters.payload_rules import checked, payload_corrupt, payload_not_found, refuse_too_large
from engine.adapters.sealed.envelope import MAGIC, RunSecrets, open_sealed, seal
from engine.adapters.sealed.keyring import RunKeyring
from engine.domain.run import PayloadRef
from engine.ports.payload_store import Committed


class SealedPayloadStore:
    """Implements ``PayloadStore``."""

    def __init__(self, objects: PayloadObjects, keyring: RunKeyring) -> None:
        self._objects, self._keyring = objects, keyring

    async def put(self, tenant_id: str, run_id: str, data: bytes, media_type: str = "application/json") -> PayloadRef:
        """See ``PayloadStore.put``. Written again under the same name, so a damaged object is healed."""
        refuse_too_large(data)
        ref = PayloadRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), media_type=media_type)
        secrets = await self._keyring.get(tenant_id, run_id)
        name = secrets.name(ref.sha256)
        await self._objects.put(tenant_id, run_id, name, seal(secrets, name, bytes(data)))
        return ref

    async def get(self, tenant_id: str, run_id: str, ref: PayloadRef) -> bytes:
        """See ``PayloadStore.get``."""
        secrets = await self._keyring.find(tenant_id, run_id)
        if secrets is not None:
            name = secrets.name(ref.sha256)
            stored = await self._objects.get(tenant_id, run_id, name)
            if stored is not None:
                return checked(open_sealed(secrets, name, stored), ref)
        clear = await self._objects.get(tenant_id, run_id, ref.sha256)
        if clear is not None:
            return checked(clear, ref)
        raise await self._absent(tenant_id, run_id, secrets)

    async def committed(self, tenant_id: str, run_id: str, commitment: str) -> Committed:
        """See ``PayloadStore.committed``. Objects are named by commitments; records of earlier versions hold plain hashes."""
        secrets = await self._keyring.find(tenant_id, run_id)
        if secrets is not None:
            for name in (commitment, secrets.name(commitment)):
                stored = await self._objects.get(tenant_id, run_id, name)
                if stored is not None and stored.startswith(MAGIC):
                    data = open_sealed(secrets, name, stored)
                    if secrets.name(hashlib.sha256(data).hexdigest()) != name:
                        raise payload_corrupt(name)
                    return Committed(data, secrets.name_key if name == commitment else None)
        clear = await self._objects.get(tenant_id, run_id, commitment)
        if clear is None:
            raise await self._absent(tenant_id, run_id, secrets)
        if hashlib.sha256(clear).hexdigest() != commitment:
            raise payload_corrupt(commitment)
        return Committed(clear)

    async def delete_run(self, tenant_id: str, run_id: str) -> int:
        """See ``PayloadStore.delete_run``: the key first, because that reaches every copy at once."""
        await self._keyring.destroy(tenant_id, run_id)
        return await self._objects.delete_run(tenant_id, run_id)

    async def _absent(self, tenant_id: str, run_id: str, secrets: RunSecrets | None) -> Exception:
        if secrets is not None:
            # What is not there may have been erased by another process; ours would know a little later.
            self._keyring.forget(tenant_id, run_id)
            await self._keyring.find(tenant_id, run_id)
        return payload_not_found()
