"""`./livoa dlq` against a namespace: what was put aside is seen without being touched, and sent again with the same content."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.dead_letters import known_entities, readable
from cli.main import main
from engine.domain.run_messages import RUN_EVENTS_TOPIC, RUN_REQUESTS_QUEUE
from local_host.queues import DEAD_LETTER_SUFFIX, EntityOptions, OutgoingMessage
from tests.contract.stores.builders import NOON
from tests.support.bus_emulator import Emulator
from tests.support.envelopes import Sender

SUBSCRIPTION = f"{RUN_EVENTS_TOPIC}/Subscriptions/all"
STEPS = "step-commands"
Dlq = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    options = {
        RUN_REQUESTS_QUEUE: EntityOptions(duplicate_window_s=600),
        STEPS: EntityOptions(sessions=True, duplicate_window_s=600),
        "step-results": EntityOptions(),
        SUBSCRIPTION: EntityOptions(sessions=True),
        f"{RUN_EVENTS_TOPIC}/Subscriptions/other": EntityOptions(sessions=True),
    }
    running = Emulator(tmp_path, options)
    yield running
    running.close()


@pytest.fixture
def dlq(emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dlq:
    """The command as a user of the data folder types it; JSON output."""
    for name in ("LIVOA_BUS_CONNECTION", "LIVOA_BUS_CONNECTION_FILE", "LIVOA_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "service-bus.connection").write_text(emulator.connection_string + "\n")

    def run(*arguments: str) -> tuple[int, Any, str]:
        code = main(["dlq", *arguments, "--data", str(tmp_path), "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return run


def put_aside(emulator: Emulator, entity: str, *messages: OutgoingMessage, reason: str = "request.invalid") -> None:
    """Send messages and make dead letters of them."""
    for message in messages:
        emulator.broker.send(entity.partition("/Subscriptions/")[0], message)
        session = emulator.broker.accept_session(entity) if message.session_id else None
        (locked,) = emulator.broker.receive(entity, 1, session)
        emulator.broker.dead_letter(entity, locked.lock_token, reason, '{"code":"' + reason + '"}')
        if session is not None:
            emulator.broker.release_session(session)


def emptied(emulator: Emulator, entity: str) -> list[OutgoingMessage]:
    """Everything that can be received, taken out."""
    found: list[OutgoingMessage] = []
    while True:
        name = entity.removesuffix(DEAD_LETTER_SUFFIX)
        wants_session = entity == name and name in (STEPS, SUBSCRIPTION)
        session = emulator.broker.accept_session(entity) if wants_session else None
        locked = emulator.broker.receive(entity, 50, session) if session or not wants_session else []
        if not locked:
            return found
        for each in locked:
            emulator.broker.complete(entity, each.lock_token)
            found.append(each.message)


def message(text: str = "one", **more: Any) -> OutgoingMessage:
    return OutgoingMessage(text.encode(), **({"message_id": f"id-of-{text}"} | more))


def test_the_entities_in_use_are_those_of_the_project() -> None:
    assert known_entities() == [STEPS, "step-results", RUN_REQUESTS_QUEUE, SUBSCRIPTION]


def test_a_list_names_what_was_put_aside_everywhere_and_touches_nothing(emulator: Emulator, dlq: Dlq) -> None:
    put_aside(emulator, RUN_REQUESTS_QUEUE, message("one"), message("two"))
    put_aside(emulator, STEPS, message("step", session_id="contoso--1"), reason="bus.command_invalid")
    for _ in range(2):
        code, found, _ = dlq("list")
        assert code == 0
        assert [(each["entity"], each["message_id"], each["reason"]) for each in found["dead_letters"]] == [
            (STEPS, "id-of-step", "bus.command_invalid"),
            (RUN_REQUESTS_QUEUE, "id-of-one", "request.invalid"),
            (RUN_REQUESTS_QUEUE, "id-of-two", "request.invalid"),
        ]
    assert len(dlq("list", RUN_REQUESTS_QUEUE, "--limit", "1")[1]["dead_letters"]) == 1


def test_one_is_shown_with_its_content_only_when_asked(emulator: Emulator, dlq: Dlq) -> None:
    put_aside(emulator, RUN_REQUESTS_QUEUE, message('{"intent": "hello", "nonce": "canary"}'))
    number = str(dlq("list", RUN_REQUESTS_QUEUE)[1]["dead_letters"][0]["sequence_number"])
    code, shown, _ = dlq("show", RUN_REQUESTS_QUEUE, number)
    assert (code, shown["description"], "body" in shown) == (0, '{"code":"request.invalid"}', False)
    _, shown, _ = dlq("show", RUN_REQUESTS_QUEUE, number, "--body")
    assert json.loads(shown["body"]) == {"intent": "hello", "nonce": "(not shown)"}
    code, shown, _ = dlq("show", RUN_REQUESTS_QUEUE, "999999")
    assert (code, shown["error"]["code"]) == (1, "dlq.not_found")


def test_a_replayed_message_is_the_same_to_the_byte_and_passes_duplicate_detection(
    emulator: Emulator, dlq: Dlq
) -> None:
    sent = message(
        session_id="contoso--3", content_type="application/json", correlation_id="c", subject="s",
        properties={"Diagnostic-Id": "00-1-2-01", "n": 7, "postponed": 30},
    )  # fmt: skip
    put_aside(emulator, STEPS, sent)
    number = dlq("list", STEPS)[1]["dead_letters"][0]["sequence_number"]
    code, done, _ = dlq("replay", STEPS, str(number))
    assert (code, [each["sequence_number"] for each in done["replayed"]], done["not_found"]) == (0, [number], [])
    (again,) = emptied(emulator, STEPS)
    assert (again.body, again.session_id, again.content_type) == (sent.body, sent.session_id, sent.content_type)
    assert (again.correlation_id, again.subject) == ("c", "s")
    assert again.message_id == f"id-of-one.replay-{number}"
    assert dict(again.properties) == {"Diagnostic-Id": "00-1-2-01", "n": 7, "replay_of": "id-of-one"}
    assert emptied(emulator, STEPS + DEAD_LETTER_SUFFIX) == []


def test_only_what_is_wanted_is_replayed_and_the_rest_stays(emulator: Emulator, dlq: Dlq) -> None:
    put_aside(emulator, RUN_REQUESTS_QUEUE, message("one"), message("two"))
    put_aside(emulator, RUN_REQUESTS_QUEUE, message("three"), message("four"), reason="audit.unavailable")
    code, done, _ = dlq("replay", RUN_REQUESTS_QUEUE, "--reason", "audit.unavailable", "--limit", "1")
    assert (code, [each["message_id"] for each in done["replayed"]]) == (0, ["id-of-three"])
    assert [m.body for m in emptied(emulator, RUN_REQUESTS_QUEUE)] == [b"three"]
    left = dlq("list", RUN_REQUESTS_QUEUE)[1]["dead_letters"]
    assert [each["message_id"] for each in left] == ["id-of-one", "id-of-two", "id-of-four"]
    code, done, _ = dlq("replay", RUN_REQUESTS_QUEUE, "--all")
    assert [m.body for m in emptied(emulator, RUN_REQUESTS_QUEUE)] == [b"one", b"two", b"four"]
    assert dlq("replay", RUN_REQUESTS_QUEUE, "4711")[:2] == (1, {"replayed": [], "not_found": [4711]})


def test_a_message_that_fails_again_keeps_the_id_it_had_first(emulator: Emulator, dlq: Dlq) -> None:
    put_aside(emulator, RUN_REQUESTS_QUEUE, message())
    for _ in range(2):
        dlq("replay", RUN_REQUESTS_QUEUE, "--all")
        (locked,) = emulator.broker.receive(RUN_REQUESTS_QUEUE, 1)
        assert locked.message.properties["replay_of"] == "id-of-one"
        assert locked.message.message_id.startswith("id-of-one.replay-")
        assert locked.message.message_id.count(".replay-") == 1
        emulator.broker.dead_letter(RUN_REQUESTS_QUEUE, locked.lock_token, "again")


@pytest.mark.parametrize("name", ["postponed", "Put-Off"])
def test_what_was_put_off_to_the_end_may_be_put_off_anew(emulator: Emulator, dlq: Dlq, name: str) -> None:
    """Else it would be a dead letter again at the first trouble."""
    put_aside(emulator, RUN_REQUESTS_QUEUE, message(properties={name: "120", "mine": "kept"}))
    dlq("replay", RUN_REQUESTS_QUEUE, "--all")
    (again,) = emptied(emulator, RUN_REQUESTS_QUEUE)
    assert again.properties == {"mine": "kept", "replay_of": "id-of-one"}


def test_what_a_crash_left_behind_is_sent_again_under_the_same_id_and_dropped(emulator: Emulator, dlq: Dlq) -> None:
    put_aside(emulator, RUN_REQUESTS_QUEUE, message())
    number = dlq("list", RUN_REQUESTS_QUEUE)[1]["dead_letters"][0]["sequence_number"]
    emulator.broker.send(RUN_REQUESTS_QUEUE, message(message_id=f"id-of-one.replay-{number}"))  # sent, not taken out
    dlq("replay", RUN_REQUESTS_QUEUE, str(number))
    assert len(emptied(emulator, RUN_REQUESTS_QUEUE)) == 1


def test_a_subscription_is_replayed_through_its_topic(emulator: Emulator, dlq: Dlq) -> None:
    put_aside(emulator, SUBSCRIPTION, message(session_id="run-1"))
    assert dlq("replay", SUBSCRIPTION, "--all")[0] == 0
    assert [(m.body, m.session_id) for m in emptied(emulator, SUBSCRIPTION)] == [(b"one", "run-1")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", RUN_REQUESTS_QUEUE, "3"),
        ("show",),
        ("show", RUN_REQUESTS_QUEUE),
        ("replay",),
        ("replay", RUN_REQUESTS_QUEUE),
        ("replay", RUN_REQUESTS_QUEUE, "3", "--all"),
        ("list", "--limit", "0"),
        ("list", "--limit", "501"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(dlq: Dlq, arguments: tuple[str, ...]) -> None:
    code, said, _ = dlq(*arguments)
    assert (code, said["error"]["code"]) == (2, "cli.usage")


def test_without_a_bus_it_says_where_it_looked(tmp_path: Path, dlq: Dlq) -> None:
    code, said, _ = dlq("list", "--connection-file", str(tmp_path / "nowhere"))
    assert (code, said["error"]["code"]) == (2, "bus.not_configured")
    (tmp_path / "bad").write_text(
        "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=canary;UseDevelopmentEmulator=true"
    )
    code, said, err = dlq("list", "--connection-file", str(tmp_path / "bad"))
    assert (code, said["error"]["code"]) == (3, "bus.unavailable")
    assert "canary" not in json.dumps(said) + err
    (tmp_path / "bad").write_text("nonsense canary")
    code, said, err = dlq("list", "--connection-file", str(tmp_path / "bad"))
    assert code == 3
    assert "canary" not in json.dumps(said) + err
    code, said, _ = dlq("list", "no-such-queue")
    assert (code, said["error"]["code"]) == (1, "bus.not_found")


def test_content_for_people_is_bounded_and_keeps_secrets() -> None:
    signed = Sender().sign({"intent": "hello"}, NOON)
    shown = json.loads(readable(signed, 2_000))
    assert shown["payload"]["request"] == {"intent": "hello"}
    assert shown["signature"] == "(not shown)"
    assert signed.rsplit(b".", 1)[1].decode() not in json.dumps(shown)
    nested = {"a": [{"Authorization": "canary"}, {"access_key": "canary"}], "token": 7, "key": "run-1/a"}
    assert "canary" not in readable(json.dumps(nested).encode(), 2_000)
    assert '"run-1/a"' in readable(json.dumps(nested).encode(), 2_000)
    assert readable(b"\xff\x00", 100) == "(2 bytes that are no JSON)"
    long = readable(json.dumps({"text": "x" * 5_000}).encode(), 100)
    assert len(long) < 200
