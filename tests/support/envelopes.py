"""Signed messages for tests: a sender with a key pair, and envelopes that can be bent in every place."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from engine.domain.tenant import MessageSender, SenderKey


def _coordinate(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


@dataclass
class Sender:
    """Who signs messages for a tenant. ``key`` is of another curve in some tests."""

    tenant_id: str = "contoso"
    name: str = "erp"
    key_id: str = "2026-11"
    audience: str = "api://livoa"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def public(self) -> SenderKey:
        numbers = self.key.public_key().public_numbers()
        return SenderKey(key_id=self.key_id, x=_coordinate(numbers.x), y=_coordinate(numbers.y))

    def registered(self) -> MessageSender:
        """How it stands in the tenant's configuration."""
        return MessageSender(name=self.name, keys=(self.public(),))

    def claims(self, request: Any, at: datetime, message_id: str = "order-1") -> dict[str, Any]:
        """Claims of a good message."""
        return {
            "aud": self.audience,
            "iat": int(at.timestamp()),
            "exp": int((at + timedelta(hours=1)).timestamp()),
            "jti": message_id,
            "request": request,
        }

    def sign(self, request: Any, at: datetime, message_id: str = "order-1") -> bytes:
        """A message."""
        return self.sign_bytes(json.dumps(self.claims(request, at, message_id)).encode())

    def sign_bytes(self, payload: bytes) -> bytes:
        """Any content under a good header and signature."""
        header = {"typ": "livoa-run-request+jws", "kid": f"{self.tenant_id}/{self.name}/{self.key_id}"}
        return jwt.PyJWS().encode(payload, self.key, algorithm="ES256", headers=header).encode()
