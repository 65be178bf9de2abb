"""The tenant of a message is the one whose key signed it, and a message that is not wholly right is nobody's."""

from __future__ import annotations

import base64
import json
from datetime import UTC, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from engine.domain.errors import LivoaError
from engine.domain.principal import Role
from engine.domain.tenant import MessageSender, SenderKey, TenantConfig
from engine.identity import TenantEnvelopes
from engine.identity.envelopes import MAX_LIFETIME_S
from engine.ports.identity import TokenRefusedError
from tests.support.envelopes import Sender
from tests.unit.identity.tokens import NOW, Directory, FixedClock, hand_made

MAX = 10_000
REQUEST = {"intent": "Say hello"}


class Desk:
    """Two tenants with a sender each, of the same name and with the same key id."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        self.contoso, self.fabrikam = Sender("contoso"), Sender("fabrikam")
        self.tenants = [self._tenant(self.contoso), self._tenant(self.fabrikam)]

    def _tenant(self, sender: Sender, **more: Any) -> TenantConfig:
        return TenantConfig(
            tenant_id=sender.tenant_id,
            display_name=sender.tenant_id,
            **({"message_senders": (sender.registered(),)} | more),
        )

    async def verify(self, message: bytes, max_bytes: int = MAX) -> Any:
        verifier = TenantEnvelopes(Directory(*self.tenants), self.clock, audience="api://livoa")
        return await verifier.verify(message, max_bytes=max_bytes)

    async def refused(self, message: bytes, **more: Any) -> LivoaError:
        with pytest.raises(LivoaError) as caught:
            await self.verify(message, **more)
        return caught.value


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_signed_message_is_its_senders_and_may_submit_and_nothing_else(desk: Desk) -> None:
    signed = await desk.verify(desk.contoso.sign(REQUEST, NOW, "order-7"))
    assert (signed.message_id, signed.request) == ("order-7", REQUEST)
    principal = signed.principal
    assert (principal.tenant_id, principal.subject, principal.kind) == ("contoso", "sender:erp", "app")
    assert principal.roles == {Role.RUNS_SUBMIT}
    assert principal.authenticated_at == NOW.astimezone(UTC)


async def test_nobody_signs_for_another_tenant(desk: Desk) -> None:
    ours = desk.contoso
    claimed = [
        Sender("fabrikam", key=ours.key).sign(REQUEST, NOW),  # our key, their name
        Sender("contoso", key=desk.fabrikam.key).sign(REQUEST, NOW),
        Sender("contoso", "other", key=ours.key).sign(REQUEST, NOW),
        Sender("contoso", key_id="2027", key=ours.key).sign(REQUEST, NOW),
        Sender("nobody", key=ours.key).sign(REQUEST, NOW),
        Sender("contoso").sign(REQUEST, NOW),
    ]
    answers = [await desk.refused(message) for message in claimed]
    assert {(err.code, err.status, err.message) for err in answers} == {
        ("message.signature_invalid", 401, "No registered key of the named sender made this signature.")
    }
    assert not any(isinstance(err, TokenRefusedError) for err in answers), "they speak for nobody"


async def test_any_changed_character_breaks_the_message(desk: Desk) -> None:
    message = desk.contoso.sign(REQUEST, NOW)
    header, payload, signature = message.split(b".")
    inside = base64.urlsafe_b64decode(payload + b"==").replace(b"Say hello", b"Say adieu")
    other = base64.urlsafe_b64encode(inside).rstrip(b"=")
    assert (await desk.refused(b".".join((header, other, signature)))).code == "message.signature_invalid"
    assert (
        await desk.refused(b".".join((header, payload, signature[:-4] + b"AAAA")))
    ).code == "message.signature_invalid"


@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "JWT"},
        {"typ": ...},
        {"kid": ...},
        {"kid": "contoso"},
        {"kid": "contoso/erp/2026-11/x"},
        {"kid": "con toso/erp/2026-11"},
        {"jku": "https://evil.test/keys"},
        {"jwk": {"kty": "EC"}},
        {"crit": ["b64"], "b64": False},
    ],
)
async def test_a_header_that_asks_for_anything_else_is_malformed(desk: Desk, headers: dict[str, Any]) -> None:
    payload = json.dumps(desk.contoso.claims(REQUEST, NOW)).encode()
    message = _signed_by_hand(desk.contoso, payload, headers)
    assert (await desk.refused(message)).code == "message.malformed"


def _signed_by_hand(sender: Sender, payload: bytes, headers: dict[str, Any]) -> bytes:
    """A genuine signature over any header, also over one that the library would not write."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    base = {"alg": "ES256", "typ": "livoa-run-request+jws", "kid": "contoso/erp/2026-11"} | headers
    kept = {name: value for name, value in base.items() if value is not ...}
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(kept).encode(), payload)]
    r, s = decode_dss_signature(sender.key.sign(b".".join(parts), ec.ECDSA(hashes.SHA256())))
    signature = base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).rstrip(b"=")
    return b".".join((*parts, signature))


async def test_a_hand_made_signature_is_otherwise_good(desk: Desk) -> None:
    message = _signed_by_hand(desk.contoso, json.dumps(desk.contoso.claims(REQUEST, NOW)).encode(), {})
    assert (await desk.verify(message)).principal.tenant_id == "contoso"


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "ES384", "es256"])
async def test_the_algorithm_is_ours(desk: Desk, alg: str) -> None:
    header = {"alg": alg, "typ": "livoa-run-request+jws", "kid": "contoso/erp/2026-11"}
    public = desk.contoso.public()
    message = hand_made(header, desk.contoso.claims(REQUEST, NOW), f"{public.x}{public.y}".encode()).encode()
    assert (await desk.refused(message)).code == "message.malformed"


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"aud": "api://other"}, "message.audience_wrong", "/aud"),
        ({"aud": ["api://livoa"]}, "message.audience_wrong", "/aud"),
        ({"exp": int(NOW.timestamp()) - 61, "iat": int(NOW.timestamp()) - 500}, "message.expired", "/exp"),
        ({"iat": int(NOW.timestamp()) + 61}, "message.not_yet_valid", "/iat"),
        ({"exp": int(NOW.timestamp()) + MAX_LIFETIME_S + 1}, "message.malformed", "/exp"),
        ({"exp": int(NOW.timestamp())}, "message.malformed", "/exp"),
        ({"exp": True}, "message.malformed", "/exp"),
        ({"iat": "now"}, "message.malformed", "/iat"),
        ({"iat": -1}, "message.malformed", "/iat"),
        ({"jti": "an id with blanks"}, "message.malformed", "/jti"),
        ({"jti": 7}, "message.malformed", "/jti"),
        ({"jti": ...}, "message.malformed", None),
        ({"request": ...}, "message.malformed", None),
        ({"tenant_id": "fabrikam"}, "message.malformed", None),
    ],
)
async def test_a_genuine_message_with_wrong_claims_is_refused_and_it_is_known_whose(
    desk: Desk, changes: dict[str, Any], code: str, pointer: str | None
) -> None:
    claims = desk.contoso.claims(REQUEST, NOW) | changes
    kept = {name: value for name, value in claims.items() if value is not ...}
    refused = await desk.refused(desk.contoso.sign_bytes(json.dumps(kept).encode()))
    assert (refused.code, refused.pointer) == (code, pointer)
    assert isinstance(refused, TokenRefusedError)
    assert (refused.speaker.tenant_id, refused.speaker.subject) == ("contoso", "sender:erp")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "message.malformed"),
        (b"[]", "message.malformed"),
        (b"{", "json.syntax"),
        (b'{"a":1,"a":2}', "json.duplicate_key"),
    ],
)
async def test_the_content_is_read_strictly(desk: Desk, payload: bytes, code: str) -> None:
    assert (await desk.refused(desk.contoso.sign_bytes(payload))).code == code


@pytest.mark.parametrize(
    "message", [b"", b"hello", b"a.b", b"a.b.c.d", b"\xff\xfe", b'{"intent": "hello"}', b"e30.e30.e30"]
)
async def test_what_is_no_envelope_is_malformed(desk: Desk, message: bytes) -> None:
    assert (await desk.refused(message)).code == "message.malformed"


async def test_a_message_has_a_size(desk: Desk) -> None:
    fits = desk.contoso.sign({"intent": "x" * 9_900}, NOW)
    assert (await desk.verify(fits)).request
    assert (await desk.refused(desk.contoso.sign({"intent": "x" * 15_000}, NOW))).code == "json.too_large"
    assert (await desk.refused(desk.contoso.sign({"intent": "x" * 90_000}, NOW))).code == "message.too_large"


async def test_a_suspended_tenants_messages_are_refused(desk: Desk) -> None:
    desk.tenants[0] = desk._tenant(desk.contoso, status="suspended")
    refused = await desk.refused(desk.contoso.sign(REQUEST, NOW))
    assert (refused.code, refused.status) == ("auth.tenant_suspended", 403)


async def test_a_key_is_replaced_without_a_gap_and_then_no_longer_valid(desk: Desk) -> None:
    new = Sender("contoso", key_id="2027-01")
    both = MessageSender(name="erp", keys=(desk.contoso.public(), new.public()))
    desk.tenants[0] = desk._tenant(desk.contoso, message_senders=(both,))
    subjects = {(await desk.verify(s.sign(REQUEST, NOW))).principal.subject for s in (desk.contoso, new)}
    assert subjects == {"sender:erp"}, "a sender stays who it is, so a repeated message is still the same"
    desk.tenants[0] = desk._tenant(desk.contoso, message_senders=(MessageSender(name="erp", keys=(new.public(),)),))
    assert (await desk.refused(desk.contoso.sign(REQUEST, NOW))).code == "message.signature_invalid"


async def test_a_registered_point_that_is_on_no_curve_verifies_nothing(desk: Desk) -> None:
    broken = SenderKey(key_id="2026-11", x="A" * 43, y="A" * 43)
    desk.tenants[0] = desk._tenant(desk.contoso, message_senders=(MessageSender(name="erp", keys=(broken,)),))
    assert (await desk.refused(desk.contoso.sign(REQUEST, NOW))).code == "message.signature_invalid"


async def test_clocks_may_differ_by_a_minute(desk: Desk) -> None:
    assert await desk.verify(desk.contoso.sign(REQUEST, NOW + timedelta(seconds=59)))
    desk.clock.pass_s(3600 + 59)
    assert await desk.verify(desk.contoso.sign(REQUEST, NOW))
    desk.clock.pass_s(2)
    assert (await desk.refused(desk.contoso.sign(REQUEST, NOW))).code == "message.expired"
