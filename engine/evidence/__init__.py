"""Evidence: the canonical form of JSON, commitments over it, and the hash chain that audit records stand in.

Pure functions over values; nothing here stores, signs or reads a clock. What a chain alone cannot show (a tail cut off, a chain
rewritten from its start) is shown by comparing it with a head kept elsewhere: see ``verify``.
"""

from engine.evidence.canonical import canonical_bytes, canonical_sha256
from engine.evidence.chain import Head, chain, record_hash, verify

__all__ = ["Head", "canonical_bytes", "canonical_sha256", "chain", "record_hash", "verify"]
