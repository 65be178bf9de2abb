"""Settings that say where content is kept and what encrypts the keys it is encrypted with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from engine.domain.errors import LivoaError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class PayloadSettings:
    """``place`` is a data folder or the address of a container, ``account_key`` the key of its account (None: the app's own
    identity). ``key`` is a key file or the address of a key in a vault. What is None must be set before content can be kept."""

    place: Path | str | None = None
    key: Path | str | None = None
    account_key: str | None = field(default=None, repr=False)


def payload_settings(env: Mapping[str, str], *, local: bool, data_dir: Path) -> PayloadSettings:
    """Read and check them. Raises ``LivoaError("settings.invalid")``."""
    place, key = env.get("LIVOA_PAYLOADS") or "", env.get("LIVOA_PAYLOAD_KEY") or ""
    if "://" in key and not key.startswith("https://"):
        raise setting_error("LIVOA_PAYLOAD_KEY", "must be a path on this machine, or an https:// address")
    return PayloadSettings(
        _place(place, local=local) if place else data_dir if local else None,
        (key if "://" in key else Path(key).resolve()) if key else data_dir / "payload-keys" if local else None,
        env.get("LIVOA_PAYLOADS_ACCOUNT_KEY") or None,
    )


def setting_error(name: str, problem: str) -> LivoaError:
    """The one answer for a wrong setting."""
    return LivoaError("settings.invalid", f"setting {name}: {problem}", status=500, pointer=f"/{name}")


def _place(text: str, *, local: bool) -> Path | str:
    if "://" not in text:
        return Path(text).resolve()
    parts = urlsplit(text)
    # A key or a token over an open connection would be anybody's.
    private = parts.scheme == "https" or (local and parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not (private and parts.hostname and parts.path.strip("/") and not parts.query and parts.username is None):
        words = (
            "must be a folder, or https://ACCOUNT.blob.core.windows.net/CONTAINER (http:// to this machine when local)"
        )
        raise setting_error("LIVOA_PAYLOADS", words)
    return text.rstrip("/")
