"""Who calls: token validation, signing keys, the issuer of the developer's machine, and the grants that agents are given.

Only signed tokens and signed envelopes make an identity; headers that claim one are never read here. Deciding what a principal
may do is not this package's business beyond onboarding, suspension and the allowed client applications.
"""

from engine.identity.development import DevelopmentIssuer, WithDevelopmentIssuer
from engine.identity.envelopes import TenantEnvelopes
from engine.identity.grants import SignedGrants
from engine.identity.keys import FileKeySource, FirstOf, JwksCache, KeySource, SigningKey, parse_jwks
from engine.identity.rejections import AuditedRejections
from engine.identity.validator import JwtTokenValidator

__all__ = [
    "AuditedRejections",
    "DevelopmentIssuer",
    "FileKeySource",
    "FirstOf",
    "JwksCache",
    "JwtTokenValidator",
    "KeySource",
    "SignedGrants",
    "SigningKey",
    "TenantEnvelopes",
    "WithDevelopmentIssuer",
    "parse_jwks",
]
