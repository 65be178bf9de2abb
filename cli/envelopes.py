"""Keys of senders and signed messages, as a sender of run requests needs them (docs/messages.md, ADR 0010).

What is signed here passes the check that every message passes; nothing about it is special to this machine. A private key stays
in its file, for this user only, and is never shown.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CliError
from cli.exit_codes import ExitCode
from engine.domain.ids import is_wire_id
from engine.identity.envelopes import ALGORITHM, ENVELOPE_TYPE, MAX_LIFETIME_S

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

FOLDER = "senders"


@dataclass(frozen=True, slots=True)
class SenderName:
    """Who signs: the sender of a tenant, and which of its keys."""

    tenant: str
    sender: str
    key_id: str

    @classmethod
    def of(cls, text: str) -> SenderName:
        """``TENANT/SENDER/KEY``. Raises CliError (USAGE)."""
        parts = text.split("/")
        if len(parts) != 3 or not all(map(is_wire_id, parts)):
            raise CliError(
                f"{text!r} does not name a sender's key",
                hint="write TENANT/SENDER/KEY, for instance contoso/erp/2026-11: letters, digits, dots, underscores, dashes",
                exit_code=ExitCode.USAGE,
                code="cli.sender",
            )
        return cls(*parts)

    def file(self, data: Path) -> Path:
        """Where the private key is in a data folder. No id holds a plus, and none can lead elsewhere."""
        return data / FOLDER / f"{self.tenant}+{self.sender}+{self.key_id}.pem"

    def __str__(self) -> str:
        return f"{self.tenant}/{self.sender}/{self.key_id}"


def make_key(file: Path) -> EllipticCurvePrivateKey:
    """A new P-256 key in a file of its own. Raises CliError (USAGE) where there is one already: somebody may rely on it."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as err:
        hint = "name a new key (contoso/erp/2027-01): a sender may have four at once; --show prints what this one registers as"
        raise CliError(
            f"{file} is there already", hint=hint, exit_code=ExitCode.USAGE, code="message.key_exists"
        ) from err
    except OSError as err:
        raise CliError(f"cannot write {file}: {err.strerror}", exit_code=ExitCode.USAGE, code="cli.file") from err
    with os.fdopen(descriptor, "wb") as out:
        out.write(pem)
    return key


def read_key(file: Path, name: SenderName) -> EllipticCurvePrivateKey:
    """The private key in a PEM file. Raises CliError (USAGE) when there is none, or one of another kind."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except OSError as err:
        hint = f"./livoa message key {name} makes one; --key names one that is elsewhere"
        message = f"no key of {name} in {file}: {err.strerror}"
        raise CliError(message, hint=hint, exit_code=ExitCode.USAGE, code="message.key_missing") from err
    except (ValueError, TypeError) as err:
        raise _no_key(file) from err
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise _no_key(file)
    return key


def registration(key: EllipticCurvePrivateKey, name: SenderName) -> dict[str, Any]:
    """How the sender stands in ``message_senders`` of its tenant's page: its name and the public half of the key."""
    numbers = key.public_key().public_numbers()
    return {
        "name": name.sender,
        "keys": [{"key_id": name.key_id, "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}],
    }


def registration_yaml(entry: dict[str, Any]) -> str:
    """The block to put into the tenant's page. Ids are quoted, because YAML would read ``2026`` as a number."""
    (key,) = entry["keys"]
    members = ", ".join(f"{name}: {json.dumps(value)}" for name, value in key.items())
    return f"message_senders:\n  - name: {json.dumps(entry['name'])}\n    keys:\n      - {{{members}}}"


def signed(
    request: Any,
    key: EllipticCurvePrivateKey,
    name: SenderName,
    *,
    message_id: str,
    audience: str,
    at: datetime,
    lifetime_s: int,
) -> str:
    """The message: a compact JWS about a request, valid from ``at`` on. Raises CliError (USAGE) for an id or lifetime that
    would be refused; whether the request is one is for the host to say."""
    import jwt

    if not is_wire_id(message_id):
        raise _usage(f"{message_id!r} is no id of a message: 1 to 100 letters, digits, dots, underscores or dashes")
    if not 1 <= lifetime_s <= MAX_LIFETIME_S:
        raise _usage(f"--lifetime must be 1 to {MAX_LIFETIME_S} seconds")
    issued = int(at.timestamp())
    claims = {"aud": audience, "iat": issued, "exp": issued + lifetime_s, "jti": message_id, "request": request}
    return jwt.PyJWS().encode(
        json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode(),
        key,
        algorithm=ALGORITHM,
        headers={"kid": str(name), "typ": ENVELOPE_TYPE},
    )


def _coordinate(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


def _no_key(file: Path) -> CliError:
    hint = "a sender's key is P-256 in PEM without a passphrase: ./livoa message key makes one"
    return CliError(f"{file} holds no such key", hint=hint, exit_code=ExitCode.USAGE, code="message.key_unusable")


def _usage(message: str) -> CliError:
    return CliError(message, exit_code=ExitCode.USAGE, code="cli.usage")
