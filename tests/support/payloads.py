"""The payload store as the app has it, over parts of a test's choice."""

from __future__ import annotations

from pathlib import Path

from engine.adapters.files import FilesPayloadObjects
from engine.adapters.files.key_wrapper import FileKeyWrapper
from engine.adapters.memory import FixedClock, MemoryRunKeys
from engine.adapters.payload_objects import PayloadObjects
from engine.adapters.sealed import RunKeyring, SealedPayloadStore
from engine.ports.run_keys import RunKeys


def keyring(folder: Path, keys: RunKeys | None = None) -> RunKeyring:
    """Keys of runs under a key file in ``folder``, as another process over the same ``keys`` would have them."""
    return RunKeyring(keys or MemoryRunKeys(), FileKeyWrapper(folder / "payload-keys", create=True), FixedClock())


def sealed_payloads(
    folder: Path, objects: PayloadObjects | None = None, keys: RunKeys | None = None
) -> SealedPayloadStore:
    """Payloads in ``folder``, encrypted."""
    return SealedPayloadStore(objects or FilesPayloadObjects(folder), keyring(folder, keys))
