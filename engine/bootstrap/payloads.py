"""Builds the payload store that settings ask for, and the keys it encrypts with."""

from __future__ import annotations

from pathlib import Path

from engine.adapters.payload_objects import PayloadObjects
from engine.adapters.sealed import RunKeyring, SealedPayloadStore
from engine.bootstrap.payload_settings import PayloadSettings, setting_error
from engine.ports.clock import Clock
from engine.ports.run_keys import KeyWrapper, RunKeys


def open_keyring(settings: PayloadSettings, keys: RunKeys, clock: Clock, *, local: bool) -> RunKeyring:
    """The keys of runs. A key-encryption key is made on one machine only.

    Raises ``LivoaError("settings.invalid")`` where it is missing: content is not kept in the clear.
    """
    return RunKeyring(keys, _wrapper(settings, create=local), clock)


def open_payloads(settings: PayloadSettings, keyring: RunKeyring) -> SealedPayloadStore:
    """Connects to nothing. Raises ``LivoaError("settings.invalid")`` where the place is missing."""
    return SealedPayloadStore(_objects(settings), keyring)


def _objects(settings: PayloadSettings) -> PayloadObjects:
    from engine.adapters.blob import BlobPayloadObjects
    from engine.adapters.files import FilesPayloadObjects

    if isinstance(settings.place, Path):
        return FilesPayloadObjects(settings.place)
    if settings.place is not None:
        return BlobPayloadObjects(settings.place, settings.account_key)
    raise setting_error("LIVOA_PAYLOADS", "is required unless LIVOA_ENV=local; a folder on one instance is no store")


def _wrapper(settings: PayloadSettings, *, create: bool) -> KeyWrapper:
    from engine.adapters.entra import ManagedIdentityCredential
    from engine.adapters.files.key_wrapper import FileKeyWrapper
    from engine.adapters.key_vault import VAULT_AUDIENCE, KeyVaultWrapper

    if settings.key is None:
        raise setting_error("LIVOA_PAYLOAD_KEY", "is required unless LIVOA_ENV=local; content is not kept in the clear")
    if isinstance(settings.key, Path):
        return FileKeyWrapper(settings.key, create=create)
    return KeyVaultWrapper(settings.key, ManagedIdentityCredential(VAULT_AUDIENCE))
