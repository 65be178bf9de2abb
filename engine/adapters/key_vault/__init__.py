"""Azure Key Vault: keys that sign without ever leaving the vault."""

from engine.adapters.key_vault.signer import KeyVaultSigner
from engine.adapters.key_vault.vault import VAULT_AUDIENCE
from engine.adapters.key_vault.wrapper import KeyVaultWrapper

__all__ = ["VAULT_AUDIENCE", "KeyVaultSigner", "KeyVaultWrapper"]
