"""The key that signs checkpoints, as a PEM file that only its owner can read; beside it the public halves of all that signed.

For one machine, and for a key that is mounted from a vault. A vault that signs by itself would be another adapter of ``Signer``.
To change the key put another file in its place: the old public half stays in ``{name}.pub.pem``, so that old checkpoints can
still be checked.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engine.domain.errors import LivoaError
from engine.evidence.signed import key_id_of, public_keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_COORDINATE_BYTES = 32


class FileSigner:
    """Signs with the key in ``path``, read when first asked. ``create`` makes one (mode 0600) where there is none.

    Every method raises ``LivoaError("audit.key_invalid")`` for a missing or damaged file.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path, self._create = path, create
        self._key: EllipticCurvePrivateKey | None = None
        self._key_id = ""

    async def key_id(self) -> str:
        """See ``Signer.key_id``."""
        key = await self._private()
        self._key_id = self._key_id or key_id_of(key.public_key())
        return self._key_id

    async def sign(self, data: bytes, key_id: str) -> bytes:
        """See ``Signer.sign``."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        if key_id != await self.key_id():
            raise LivoaError("audit.key_invalid", "this is not the key that signs here", status=500)
        r, s = decode_dss_signature((await self._private()).sign(data, ECDSA(SHA256())))
        return r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES)

    async def public_pem(self) -> bytes:
        """See ``Signer.public_pem``."""
        await self._private()
        return await asyncio.to_thread(public_file(self._path).read_bytes)

    async def _private(self) -> EllipticCurvePrivateKey:
        if self._key is None:
            self._key = await asyncio.to_thread(_open, self._path, self._create)
        return self._key


def public_file(path: Path) -> Path:
    """Where the public halves of a private key's file are."""
    return path.with_suffix(".pub.pem")


def _open(path: Path, create: bool) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        if create and not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError("not a P-256 key")
        _publish(public_file(path), key)
    except (OSError, ValueError, TypeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is no PEM file of a P-256 key"
        raise LivoaError(
            "audit.key_invalid", f"the signing key {path.name} cannot be used: {reason}", status=500
        ) from err
    return key


def _make(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    temporary = _write_beside(path, pem, 0o600)
    # Linking fails where the file exists already: of two processes that start together one wins, and both use its key.
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def _publish(path: Path, key: EllipticCurvePrivateKey) -> None:
    from cryptography.hazmat.primitives import serialization as form

    known = path.read_bytes() if path.exists() else b""
    if known and key_id_of(key.public_key()) in public_keys(known):
        return
    pem = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    _write_beside(path, known + pem, 0o644).replace(path)


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary
