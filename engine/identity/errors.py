"""How a token is refused: one place that makes the errors, so that none of them repeats anything the token says."""

from __future__ import annotations

from engine.domain.errors import LivoaError

_WORDS = {
    "auth.token_invalid": "The bearer token is not a valid access token.",
    "auth.token_expired": "The bearer token has expired; ask for a new one.",
    "auth.token_not_yet_valid": "The bearer token is not valid yet; check the clocks.",
    "auth.claims_missing": "The bearer token lacks a claim that every access token must carry.",
    "auth.audience_wrong": "The bearer token was issued for another application.",
    "auth.issuer_wrong": "The bearer token was not issued by the directory it names.",
    "auth.token_kind": "The bearer token is neither a delegated nor an app-only access token.",
    "auth.tenant_unknown": "The directory of this token is not onboarded.",
    "auth.client_not_allowed": "The client application may not call for this tenant.",
}


def refused(code: str) -> LivoaError:
    """A 401 with one of the codes above."""
    return LivoaError(code, _WORDS[code], status=401)


def forbidden(code: str, message: str) -> LivoaError:
    """A 403: the token is genuine and still may not be used."""
    return LivoaError(code, message, status=403)


def keys_unavailable() -> LivoaError:
    """A 503: signing keys cannot be had, so no answer about the token is possible."""
    return LivoaError(
        "auth.keys_unavailable", "Signing keys cannot be fetched at the moment.", status=503, retry_after_s=30
    )
