"""Azure Key Vault: keys that sign without ever leaving the vault."""

from engine.adapters.key_vault.signer import VAULT_AUDIENCE, KeyVaultSigner

__all__ = ["VAULT_AUDIENCE", "KeyVaultSigner"]
