"""The real detector, where the extra of requirements-pii.txt is installed; what holds without it is held everywhere."""

from __future__ import annotations

import socket
import sys

import pytest

from engine.adapters.presidio import PresidioDetector, installed
from engine.domain.personal_data import BY_PATTERN, PersonalDataType, masked

needs_the_extra = pytest.mark.skipif(not installed(), reason="requirements-pii.txt is not installed")
TEXT = (
    "Call Ann at 905-674-3793 or ann@sales.contoso.internal, card 4969 8000 2473 4372 (or 30288610434735), "
    "account GB56HXDO88167774656119, 853-37-1694, from 86.121.97.248"
)


def test_importing_the_adapter_loads_nothing() -> None:
    detector = PresidioDetector()
    assert detector.types == frozenset(BY_PATTERN)
    assert "presidio_analyzer" not in sys.modules or installed()


def test_only_a_language_model_knows_names() -> None:
    assert PersonalDataType.PERSON not in PresidioDetector().types
    assert PersonalDataType.PERSON in PresidioDetector("en_core_web_sm").types


@needs_the_extra
@pytest.mark.timeout(300)
def test_every_type_is_found_masked_and_then_gone_without_asking_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the detector called somebody")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    detector = PresidioDetector()
    found = detector.find(TEXT, BY_PATTERN)
    assert {one.type for one in found} == set(BY_PATTERN)
    clean = masked(TEXT, found)
    for secret in ("905", "ann@", "4969", "30288610434735", "GB56", "853-", "86.121"):
        assert secret not in clean
    assert clean.startswith(
        "Call Ann at [redacted: PHONE_NUMBER] or [redacted: EMAIL_ADDRESS], card [redacted: CREDIT_CARD]"
    )
    assert detector.find(clean, BY_PATTERN) == []


@needs_the_extra
@pytest.mark.timeout(300)
def test_ordinary_figures_are_left_alone() -> None:
    text = "On 2026-11-29 revenue was 1,234,567.89 EUR (+12.5 %), 42 orders in run-0123456789abcdef, plan 9f86d081884c7d65."
    assert PresidioDetector().find(text, BY_PATTERN) == []


@needs_the_extra
@pytest.mark.timeout(300)
def test_a_language_model_that_is_not_installed_is_an_error_and_no_download() -> None:
    with pytest.raises(OSError, match="no_such_pipeline"):
        PresidioDetector("no_such_pipeline").find("Ann", [PersonalDataType.PERSON])
