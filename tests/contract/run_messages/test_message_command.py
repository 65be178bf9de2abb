"""`./livoa message`: what it makes, signs and sends is what the app takes for a message of that sender, and of nobody else."""

from __future__ import annotations

import asyncio
import io
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cli.main import main
from engine.adapters.memory import SystemClock
from engine.domain.errors import LivoaError
from engine.domain.run_messages import RUN_REQUESTS_QUEUE
from engine.domain.tenant import TenantConfig
from engine.identity import TenantEnvelopes
from engine.ports.identity import SignedRequest
from local_host.queues import EntityOptions
from tests.support.bus_emulator import Emulator
from tests.unit.identity.tokens import Directory

ERP = "contoso/erp/2026-11"
INTENT = "Which channels brought the most sales?"


class Desk:
    """The command on a data folder of its own, and the app's check of what it signs."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data, self._capsys = data, capsys

    def plain(self, *arguments: str) -> tuple[int, str, str]:
        code = main(["message", *arguments, "--data", str(self.data)])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *arguments: str) -> tuple[int, Any]:
        code, out, _ = self.plain(*arguments, "--json")
        return code, json.loads(out)

    def taken(self, message: bytes, page: dict[str, Any]) -> SignedRequest:
        tenant = TenantConfig.model_validate({"tenant_id": "contoso", "display_name": "Contoso"} | page)
        envelopes = TenantEnvelopes(Directory(tenant), SystemClock(), audience="api://livoa")
        return asyncio.run(envelopes.verify(message, max_bytes=100_000))


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name in ("LIVOA_BUS_CONNECTION", "LIVOA_BUS_CONNECTION_FILE", "LIVOA_HOME", "LIVOA_API_AUDIENCE"):
        monkeypatch.delenv(name, raising=False)
    return Desk(tmp_path / "data", capsys)


@pytest.fixture
def emulator(tmp_path: Path, desk: Desk) -> Iterator[Emulator]:
    running = Emulator(tmp_path, {RUN_REQUESTS_QUEUE: EntityOptions(duplicate_window_s=600)})
    file = desk.data / "host" / "service-bus.connection"
    file.parent.mkdir(parents=True)
    file.write_text(running.connection_string + "\n")
    yield running
    running.close()


def received(emulator: Emulator) -> list[tuple[str | None, bytes]]:
    locked = emulator.broker.receive(RUN_REQUESTS_QUEUE, 10, None)
    for each in locked:
        emulator.broker.complete(RUN_REQUESTS_QUEUE, each.lock_token)
    return [(each.message.message_id, each.message.body) for each in locked]


def test_what_a_key_prints_registers_it_and_a_message_by_it_is_that_senders(desk: Desk, emulator: Emulator) -> None:
    code, block, told = desk.plain("key", ERP)
    assert (code, "private key" in told) == (0, True)
    page = yaml.safe_load(block)
    assert desk.json("send", ERP, INTENT, "--id", "order-1") == (
        0,
        {"id": "order-1", "queue": RUN_REQUESTS_QUEUE, "size_bytes": pytest.approx(380, abs=60)},
    )
    ((message_id, body),) = received(emulator)
    signed = desk.taken(body, page)
    assert (message_id, signed.message_id, signed.request) == ("order-1", "order-1", {"intent": INTENT})
    assert signed.principal.subject == "sender:erp"


def test_a_key_is_for_its_user_alone_and_never_written_over_or_shown(desk: Desk) -> None:
    made = desk.json("key", ERP)[1]
    file = Path(made["key_file"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.resolve().is_relative_to(desk.data.resolve())
    before = file.read_bytes()
    code, again = desk.json("key", ERP)
    assert (code, again["error"]["code"], file.read_bytes()) == (2, "message.key_exists", before)
    assert desk.json("key", ERP, "--show")[1] == made
    assert before.splitlines()[1].decode() not in json.dumps(made)


def test_another_key_of_the_same_name_is_not_the_senders(desk: Desk, tmp_path: Path) -> None:
    page = yaml.safe_load(desk.plain("key", ERP)[1])
    elsewhere = tmp_path / "elsewhere.pem"
    desk.plain("key", ERP, "--key", str(elsewhere))
    message = desk.json("sign", ERP, INTENT, "--key", str(elsewhere))[1]["message"]
    with pytest.raises(LivoaError) as refused:
        desk.taken(message.encode(), page)
    assert refused.value.code == "message.signature_invalid"


def test_a_request_is_signed_as_it_was_given_and_a_signed_message_goes_out_as_it_is(
    desk: Desk, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = yaml.safe_load(desk.plain("key", ERP)[1])
    request = {"intent": "Größe?", "constraints": {"deadline_s": "soon"}}
    order, jws = tmp_path / "order.json", tmp_path / "order.jws"
    order.write_text(json.dumps(request))
    code, out, _ = desk.plain("sign", ERP, "--request", str(order), "--lifetime", "60")
    jws.write_text(out)
    assert code == 0
    assert desk.plain("send", "--file", str(jws))[0] == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(jws.read_bytes())))
    assert desk.plain("send", "--file", "-")[0] == 0
    sent = received(emulator)
    assert [body for _, body in sent] == [out.strip().encode()] * 2
    assert len({message_id for message_id, _ in sent}) == 2
    assert desk.taken(sent[0][1], page).request == request


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("sign", "contoso/erp", INTENT), "cli.sender"),
        (("sign", "contoso/../2026-11", INTENT), "message.key_missing"),
        (("sign", ERP, INTENT, "--id", "order 1"), "cli.usage"),
        (("sign", ERP, INTENT, "--lifetime", "1209601"), "cli.usage"),
        (("sign", ERP), "cli.usage"),
        (("sign", ERP, INTENT, "--request", "order.json"), "cli.usage"),
        (("sign", ERP, "--request", "/nowhere/order.json"), "cli.file"),
        (("send", INTENT), "cli.sender"),
        (("send",), "cli.usage"),
        (("send", ERP, INTENT, "--file", "order.jws"), "cli.usage"),
        (("send", ERP, INTENT), "bus.not_configured"),
    ],
)
def test_wrong_usage_says_so_and_sends_nothing(desk: Desk, arguments: tuple[str, ...], code: str) -> None:
    desk.plain("key", ERP)
    exit_code, said = desk.json(*arguments)
    assert (exit_code, said["error"]["code"]) == (2, code)


def test_a_key_of_another_kind_is_refused(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    key = ec.generate_private_key(ec.SECP384R1())
    for content in (b"no key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())):
        file.write_bytes(content)
        code, said = desk.json("sign", ERP, INTENT, "--key", str(file))
        assert (code, said["error"]["code"]) == (2, "message.key_unusable")
