"""Tokens of the app's own managed identity, for calls to agents."""

from engine.adapters.entra.credential import ManagedIdentityCredential

__all__ = ["ManagedIdentityCredential"]
