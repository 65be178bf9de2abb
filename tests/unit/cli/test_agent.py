"""`./livoa agent`: what it writes, what it refuses, and the contract in docs."""

from __future__ import annotations

import socket

import pytest

from agent_kit.contract import documents, text_of
from cli.exit_codes import ExitCode
from cli.paths import ROOT

PUBLISHED = ROOT / "docs" / "agent-contract"


def test_the_published_contract_is_the_one_that_the_models_make():
    made = {name: text_of(document) for name, document in documents().items()}
    found = {path.name: path.read_text() for path in PUBLISHED.iterdir()}
    assert found == made, "./livoa agent contract --dir docs/agent-contract"


def test_every_reference_in_the_contract_leads_somewhere():
    def references(node):
        if isinstance(node, dict):
            yield from (value for key, value in node.items() if key == "$ref" and isinstance(value, str))
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for name, document in documents().items():
        for reference in references(document):
            place = document
            for token in reference.removeprefix("#/").split("/"):
                assert token in place, f"{name}: {reference}"
                place = place[token]


def test_the_contract_is_printed_or_written(tmp_path, livoa):
    printed = livoa("agent", "contract", "--json")
    assert printed.json["openapi"] == "3.1.0"
    written = livoa("agent", "contract", "--dir", str(tmp_path), "--json")
    assert written.code == ExitCode.OK
    assert sorted(path.name for path in tmp_path.iterdir()) == written.json["files"]


@pytest.mark.parametrize("name", ["Order", "order_status", "../escape", "-x", "a--b", "", "a" * 41, "9lives"])
def test_a_name_that_is_none_writes_nothing(tmp_path, livoa, name):
    result = livoa("agent", "new", "--dir", str(tmp_path / "x"), "--", name)
    assert result.code == ExitCode.USAGE
    assert not (tmp_path / "x").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path, livoa):
    (tmp_path / "mine.txt").write_text("mine")
    result = livoa("agent", "new", "order-status", "--dir", str(tmp_path))
    assert result.code == ExitCode.USAGE
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_where_nobody_answers_one_error_says_so_and_nothing_is_checked(tmp_path, livoa):
    plain = livoa("agent", "check", "http://127.0.0.1:9", "--keys", str(tmp_path))
    assert (plain.code, plain.out) == (ExitCode.UNREACHABLE, "")
    assert plain.err.splitlines()[0] == "livoa: nothing answers at http://127.0.0.1:9: Connection refused"
    assert len(plain.err.splitlines()) == 2
    told = livoa("agent", "check", "http://127.0.0.1:9", "--keys", str(tmp_path), "--json")
    assert (told.code, told.json["error"]["code"]) == (ExitCode.UNREACHABLE, "agent.unreachable")


def test_where_somebody_listens_and_says_nothing_it_is_told_after_the_patience_given(tmp_path, livoa):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        result = livoa("agent", "check", address, "--keys", str(tmp_path), "--timeout-s", "0.5", "--json")
    assert (result.code, result.json["error"]["code"]) == (ExitCode.UNREACHABLE, "agent.unreachable")
    assert "no answer in time" in result.json["error"]["message"]


def test_an_answer_of_any_kind_is_worth_checking(tmp_path, livoa, double):
    result = livoa("agent", "check", double.url, "--keys", str(tmp_path), "--json")
    assert (result.code, result.json["ok"]) == (ExitCode.FAILED, False)


def test_what_cannot_be_checked_is_wrong_usage(tmp_path, livoa):
    for address in ("ftp://127.0.0.1", "http://", "http://0x7f000001:80", "http://a@b@c"):
        assert livoa("agent", "check", address, "--keys", str(tmp_path)).code == ExitCode.USAGE
    (tmp_path / "inputs.json").write_text("[1]")
    wrong = ("--inputs", str(tmp_path / "inputs.json"), "--keys", str(tmp_path))
    assert livoa("agent", "check", "http://127.0.0.1:9", *wrong).code == ExitCode.USAGE
