"""Azure Key Vault: keys that sign without ever leaving the vault."""

from engine.adapters.key_vault.signer import KeyVaultSigner

__all__ = ["KeyVaultSigner"]
