"""Which host a text leads to, and that what clients would read differently is never taken for a good one."""

from __future__ import annotations

import pytest

from policy.flow.hosts import HOLE, UNREADABLE_HOST, entry_of, host_of_text, hosts_of
from tests.unit.policy.flow.samples import WEB, asked, bound, last, ref, step

ODD = UNREADABLE_HOST


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("https://a.com", {"a.com"}),
        ("HTTPS://A.Com./x?y#z", {"a.com"}),
        ("https://a.com:443/", {"a.com"}),
        ("https://a.com:8443/", {"a.com:8443"}),
        ("http://a.com/", {"a.com:80"}),
        ("wss://a.com", {"a.com"}),
        ("ftp://a.com/x", {"a.com:21"}),
        ("//a.com/x", {"a.com"}),
        ("https:a.com", {"a.com"}),
        ("https:///a.com", {"a.com"}),
        ("ht\ntps://a\t.com", {"a.com"}),
        (" \x01https://a.com ", {"a.com"}),
        ("https://b\u00fccher.de", {"xn--bcher-kva.de"}),
        ("https://a\u3002com", {"a.com"}),
        ("https://\uff41.com", {"a.com"}),
        ("https://\u0430.com", {"xn--80a.com"}),
        ("https://[2001:db8::1]/", {"2001:db8::1"}),
        ("https://127.0.0.1:9/", {"127.0.0.1:9"}),
        ("https://good.com@evil.com/", {"evil.com", ODD}),
        ("https://evil.com\\@good.com/", {"evil.com", ODD}),
        ("https:\\\\evil.com\\x", {"evil.com", ODD}),
        ("\\\\evil.com\\share", {"evil.com", ODD}),
        ("https://fa\u00df.de", {ODD}),
        ("https://a.com%2eevil.com", {ODD}),
        ("https://127.1/", {ODD}),
        ("https://0x7f000001/", {ODD}),
        ("https://2130706433/", {ODD}),
        ("https://a.com:0/", {ODD}),
        ("https://a.com:99999/", {ODD}),
        ("https://a..com", {ODD}),
        ("https://a b.com", {ODD}),
        ("https://", {ODD}),
        ("odd://a.com", {ODD}),
        ("Subject: hello", set()),
        ("note: see https://a.com", set()),
        ("report.csv", set()),
        ("/path/only", set()),
        ("mailto:bob@x.com", set()),
        ("", set()),
    ],
)
def test_the_host_of_a_text(text: str, hosts: set[str]) -> None:
    assert set(host_of_text(text)) == hosts


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a.com", {"a.com"}),
        ("a.com:8080/x", {"a.com:8080"}),
        ("a.com/https://b.com", {"a.com"}),
        ("file:///etc/passwd", {ODD}),
        ("javascript:alert(1)", {ODD}),
        ("data:text/plain,x", {ODD}),
        ("user@a.com", {"a.com", ODD}),
        ("not a host", {ODD}),
        ("/relative", set()),
    ],
)
def test_the_host_of_an_address_parameter(text: str, hosts: set[str]) -> None:
    assert set(host_of_text(text, is_address=True)) == hosts


def test_a_host_that_is_not_known_yet_is_none() -> None:
    assert host_of_text(f"https://{HOLE}/x") == ()
    assert host_of_text(f"https://a.com{HOLE}") == ()
    assert host_of_text(f"https://a.com/{HOLE}") == ("a.com",)


def test_hosts_are_found_anywhere_in_a_value() -> None:
    assert set(hosts_of({"x": ["https://a.com", {"y": "https://b.com"}], "n": 1})) == {"a.com", "b.com"}


def test_an_entry_of_an_allow_list_is_spelled_alike() -> None:
    assert [entry_of(entry) for entry in ("A.com.", "a.com:443", "a.com:80", "*.a.com")] == [
        "a.com", "a.com", "a.com:80", ODD,
    ]  # fmt: skip


def test_a_step_names_the_hosts_of_its_manifest_and_of_its_selectors() -> None:
    facts = last(step("put", "http.post", url="https://b.com/x", content="https://quoted.com"))
    assert facts.external_hosts == {"api.contoso.com", "b.com"}
    assert facts.untrusted_hosts == frozenset()


def test_a_template_gives_its_host_as_soon_as_it_stands() -> None:
    url = {"$template": "https://b.com/{id}", "id": ref("steps.web#/id")}
    facts = last(WEB, step("put", "http.post", url=url))
    assert facts.external_hosts == {"api.contoso.com", "b.com"}
    assert facts.untrusted_hosts == {"b.com"}


def test_a_value_of_the_request_gives_its_host_before_anything_runs() -> None:
    put = step("put", "http.post", url=ref("run#/context/values/hook"))
    assert "hook.com" in last(put, request=asked(hook="https://hook.com/")).external_hosts


def test_a_host_that_untrusted_text_gave_is_known_as_such_once_it_is_bound() -> None:
    put = step("put", "http.post", url=ref("steps.web#/url"))
    assert last(WEB, put).untrusted_hosts == frozenset()
    facts = bound(WEB, put, inputs={"url": "https://api.contoso.com/"})
    assert facts.untrusted_hosts == {"api.contoso.com"}
