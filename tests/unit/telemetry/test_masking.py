"""The last line behind the rule that no content reaches telemetry: secrets and personal data of an unmistakable form go."""

from __future__ import annotations

import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.otel.logs import JsonFormatter
from engine.domain.errors import LivoaError, Violation
from engine.domain.masking import MAX_CHARS, mask
from triggers.problems import problem

SECRETS = [
    ("Bearer abcdefgh12345678", "token"),
    ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", "token"),
    ("https://a.example/x?sig=abcd1234", "secret"),
    ("https://a.example/api?code=abcd1234", "secret"),
    ("AccountKey=abcd/efgh==", "secret"),
    ("postgresql://livoa:hunter22@db/livoa", "secret"),
    ("ann.b+c@sales.contoso.example", "email"),
    ("4969 8000 2473 4372", "card"),
    ("GB56HXDO88167774656119", "iban"),
    ("GB56 HXDO 8816 7774 6561 19", "iban"),
    ("853-37-1694", "ssn"),
    ("+49 170 1234567", "phone"),
]
HARMLESS = [
    "step performed",
    "run-0123456789abcdef",
    "2026-11-29T10:00:00.123456Z",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "4969 8000 2473 4373",
    "GB57HXDO88167774656119",
    "the budget does not cover spend: 1234567 of 9999999 micro-USD",
    "/steps/0/inputs/to/0 (plat.taint-selector)",
    "failed with code=agent.timeout",
]


@pytest.mark.parametrize(("text", "kind"), SECRETS)
def test_what_has_the_form_of_a_secret_is_taken_out_of_its_sentence(text: str, kind: str) -> None:
    for around in ("{}", "before {} after", '"{}",'):
        left = mask(around.format(text))
        assert f"[redacted: {kind}]" in left
        assert text not in left


@pytest.mark.parametrize("text", HARMLESS)
def test_ids_hashes_times_and_codes_stay(text: str) -> None:
    assert mask(text) == text


@given(st.text(max_size=3_000))
def test_it_is_total_bounded_and_done_at_once(text: str) -> None:
    once = mask(text)
    assert len(once) <= MAX_CHARS * 4
    assert len(text) > MAX_CHARS or mask(once) == once


@pytest.mark.parametrize("piece", ["a.", "a@", "1 ", "+1 ", "x:", "eyJaaaaaa.", "GB12 AAAA ", "://a", "a@a."])
def test_text_made_to_be_slow_is_not(piece: str) -> None:
    started = time.process_time()
    mask(piece * MAX_CHARS)
    assert time.process_time() - started < 1


def test_a_log_line_is_masked_in_its_message_its_arguments_and_its_fields() -> None:
    record = logging.LogRecord("livoa.x", logging.INFO, __file__, 1, "told %s", ("ann@contoso.example",), None)
    record.code = "for ann@contoso.example"
    line = JsonFormatter().format(record)
    assert "ann@" not in line
    assert line.count("[redacted: email]") == 2


def test_a_refusal_is_masked_in_every_text() -> None:
    where = Violation(code="x", pointer="/to", message="853-37-1694 is no address")
    told = problem(LivoaError("x.y", "no ann@contoso.example", violations=[where]), instance="/api/runs/a@b.example")
    assert b"ann@" not in told.body
    assert b"853-" not in told.body
    assert b"a@b" not in told.body
