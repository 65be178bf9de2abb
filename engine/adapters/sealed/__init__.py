"""Content at rest: encrypted with a key of its run, over whatever keeps the objects."""

from engine.adapters.sealed.keyring import RunKeyring
from engine.adapters.sealed.links import SealedPayloadLinks
from engine.adapters.sealed.payload_store import SealedPayloadStore

__all__ = ["RunKeyring", "SealedPayloadLinks", "SealedPayloadStore"]
