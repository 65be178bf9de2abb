"""Writing an agent: mistakes are found at start, and schemas mean what they say."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_kit import Agent, CapabilityError, StepContext, load_manifests
from agent_kit.egress import check_allowed, get_json
from agent_kit.schemas import CompiledSchema
from agent_kit.serve import JsonLines
from engine.domain.base import Frozen
from engine.domain.capability import Capability
from engine.domain.grants import request_sha256
from tests.contract.agents.harness import MANIFESTS, Raw, raw_server


class Inputs(Frozen):
    day: datetime


async def good(inputs: Inputs, context: StepContext) -> dict[str, Any]:
    return {}


def test_a_capability_needs_a_manifest_and_is_registered_once() -> None:
    agent = Agent(MANIFESTS)
    agent.capability("probe.count")(good)
    with pytest.raises(ValueError, match="twice"):
        agent.capability("probe.count")(good)
    with pytest.raises(ValueError, match="no manifest"):
        agent.capability("probe.other")(good)


def test_a_capability_is_async_and_typed() -> None:
    def sync(inputs: Inputs, context: StepContext) -> dict[str, Any]:
        return {}

    async def untyped(inputs, context):  # type: ignore[no-untyped-def]  # the mistake under test
        return {}

    async def loose(inputs: dict[str, Any], context: StepContext) -> dict[str, Any]:
        return {}

    async def without() -> dict[str, Any]:
        return {}

    for mistake in (sync, untyped, loose, without):
        with pytest.raises(TypeError):
            Agent(MANIFESTS).capability("probe.count")(mistake)


def test_a_model_stricter_than_the_schema_refuses_as_inputs_invalid() -> None:
    agent = Agent(MANIFESTS)
    agent.capability("probe.count")(good)
    with pytest.raises(CapabilityError) as caught:
        agent.capabilities["probe.count"].parse({"day": "secret-value"})
    assert caught.value.error.code == "agent.inputs_invalid"
    assert "secret-value" not in caught.value.error.message


@pytest.mark.parametrize(
    ("schema", "value", "pointers"),
    [
        ({"type": "string", "format": "date"}, "2026-09-30", []),
        ({"type": "string", "format": "date"}, "2026-9-30", [""]),
        ({"type": "string", "format": "date"}, "20260930", [""]),
        ({"type": "string", "format": "date"}, "2026-02-30", [""]),
        ({"type": "string", "format": "date-time"}, "2026-09-30T10:00:00Z", []),
        ({"type": "string", "format": "date-time"}, "2026-09-30T10:00:00", [""]),
        ({"type": "integer"}, True, [""]),
        (
            {"type": "object", "properties": {"a/b": {"type": "array", "items": {"type": "null"}}}},
            {"a/b": [None, 1]},
            ["/a~1b/1"],
        ),
        ({"required": ["x", "y"]}, {"x": 1}, [""]),
    ],
)
def test_schemas_assert_formats_and_name_places(schema: dict[str, Any], value: Any, pointers: list[str]) -> None:
    found = CompiledSchema(schema).violations(value, code="c")
    assert [one.pointer for one in found] == pointers


def test_messages_of_violations_do_not_repeat_the_value() -> None:
    schema = {"type": "object", "additionalProperties": False, "properties": {"a": {"enum": ["x"]}}}
    found = CompiledSchema(schema).violations({"a": "secret-value", "secret-name": 1}, code="c")
    assert len(found) == 2
    assert not any("secret" in one.message for one in found)


def test_a_schema_that_is_none_is_found_when_compiled() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        CompiledSchema({"type": "nonsense"}).compile()


def test_attempt_and_deadline_do_not_make_another_request() -> None:
    assert request_sha256("a.b", {"x": 1, "y": 2}) == request_sha256("a.b", {"y": 2, "x": 1.0})
    assert request_sha256("a.b", {"x": 1}) != request_sha256("a.c", {"x": 1})
    assert request_sha256("a.b", {"x": 1}) != request_sha256("a.b", {"x": "1"})


def page(name: str = "a.b") -> str:
    return (
        f"name: {name}\nversion: 1.0.0\ntitle: t\ndescription: d\ndelivery: http\nendpoint: e\n"
        "input_schema: {}\noutput_schema: {}\n"
    )


def test_manifests_are_read_and_their_faults_named(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(page())
    assert isinstance(load_manifests(tmp_path)["a.b"], Capability)
    for content, fault in (
        (page(), "twice"),
        (page() + "more: 1\n", "more"),
        ("[", "two.yaml"),
        ("x" * 300_000, "bytes"),
    ):
        (tmp_path / "two.yaml").write_text(content)
        with pytest.raises(ValueError, match=fault):
            load_manifests(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "http://rates.example/x",
        "http://127.0.0.1@rates.example/",
        "http://rates.example\\@127.0.0.1/",
        "https://127.0.0.1.example/",
        "file://127.0.0.1/etc/passwd",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[::ffff:127.0.0.1]/",
        "//127.0.0.1/",
    ],
)
def test_addresses_beside_the_allowed_hosts_are_refused(url: str) -> None:
    check_allowed("http://127.0.0.1:8080/rates", ["127.0.0.1"])
    with pytest.raises(CapabilityError) as caught:
        check_allowed(url, ["127.0.0.1"])
    assert caught.value.error.code == "egress.not_allowed"


def reply(head: str, body: bytes = b"{}") -> Raw:
    async def answer(_: Any, writer: Any) -> None:
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return answer


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        (reply("302 Found\r\nLocation: http://127.0.0.1:9/"), "egress.bad_answer", False),
        (reply("200 OK", b"not json"), "egress.bad_answer", False),
        (reply("200 OK", b'{"a": 1, "a": 2}'), "egress.bad_answer", False),
        (reply("200 OK", b" " * 300_000), "egress.bad_answer", False),
        (reply("nonsense"), "egress.unavailable", True),
    ],
)
async def test_the_outside_is_not_believed(answer: Raw, code: str, retryable: bool) -> None:
    async with raw_server(answer) as url:
        with pytest.raises(CapabilityError) as caught:
            await get_json(f"{url}/x", query={}, hosts=["127.0.0.1"], timeout_s=5)
    assert (caught.value.error.code, caught.value.error.retryable) == (code, retryable)


async def test_a_slow_outside_is_given_up() -> None:
    async def silent(reader: Any, _: Any) -> None:
        await reader.read()

    async with raw_server(silent) as url:
        with pytest.raises(CapabilityError) as caught:
            await get_json(f"{url}/x", query={"q": "1"}, hosts=["127.0.0.1"], timeout_s=0.2)
    assert caught.value.error.code == "egress.unavailable"


def test_log_lines_hold_listed_fields_only_and_no_exception_text() -> None:
    import logging
    import sys

    try:
        raise RuntimeError("secret")
    except RuntimeError:
        record = logging.LogRecord("agent_kit", logging.ERROR, "", 0, "execute", None, sys.exc_info())
    record.capability, record.body = "a.b", "secret"
    line = JsonLines().format(record)
    assert '"capability": "a.b"' in line
    assert "secret" not in line
    assert datetime.now(UTC).strftime("%Y-%m-%d") in line
