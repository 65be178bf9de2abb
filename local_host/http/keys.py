"""Access keys of the local host: made once, kept in the data directory with mode 0600, compared in constant time.

The rules are the platform's: an anonymous function needs none; FUNCTION takes the function's own key, a host key or
the master key; ADMIN takes the master key only. Deliberately no key management over HTTP: edit the file.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_host.errors import HostError
from local_host.specs import AuthLevel

FILE_NAME = "keys.json"


def write_private(path: Path, text: str) -> None:
    """Write a file only the owner may read; never visible to others, not even for a moment."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class KeyStore:
    """The keys of one data directory; call `open` once at start."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.master: str = document["masterKey"]
        self.durable: str = document["systemKeys"]["durabletask_extension"]
        self._host = tuple(document["functionKeys"].values())
        self._functions: dict[str, tuple[str, ...]] = {
            name.lower(): tuple(keys.values()) for name, keys in document.get("functions", {}).items()
        }

    @classmethod
    def open(cls, data_dir: Path) -> KeyStore:
        """Read the key file, making it first when there is none. Raises HostError `host.bad_keys`."""
        path = data_dir / FILE_NAME
        if not path.exists():
            write_private(path, json.dumps(_new_document(), indent=2) + "\n")
        try:
            store = cls(json.loads(path.read_text(encoding="utf-8")))
            keys = (store.master, store.durable, *store._host, *(k for ks in store._functions.values() for k in ks))
            if not all(isinstance(key, str) and key for key in keys):
                raise ValueError("a key is empty")
        except (ValueError, KeyError, AttributeError, TypeError) as err:
            raise HostError("host.bad_keys", "the key file is damaged; delete it to get new keys", str(path)) from err
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return store

    def allows(self, level: AuthLevel, function_name: str, presented: str | None) -> bool:
        """True when `presented` opens a function of this level."""
        if level is AuthLevel.ANONYMOUS:
            return True
        accepted = [self.master]
        if level is AuthLevel.FUNCTION:
            accepted += [*self._host, *self._functions.get(function_name.lower(), ())]
        return matches_any(presented, accepted)


def matches_any(presented: str | None, accepted: list[str]) -> bool:
    """Constant-time comparison with each accepted key; None never matches."""
    if presented is None:
        return False
    # Every key is compared, so that timing does not tell which one was close.
    return sum(hmac.compare_digest(presented.encode(), key.encode()) for key in accepted) > 0


def _new_document() -> dict[str, Any]:
    return {
        "masterKey": secrets.token_urlsafe(40),
        "functionKeys": {"default": secrets.token_urlsafe(40)},
        "systemKeys": {"durabletask_extension": secrets.token_urlsafe(40)},
        "functions": {},
    }
