"""Which destinations and addresses may be called, without any socket."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.egress import EgressRefusedError, EgressRules, normal_host, parse_entry, scope_of

FORBIDDEN = [
    "168.63.129.16", "169.254.169.254", "169.254.0.1", "192.88.99.1", "0.0.0.0", "0.1.2.3", "100.64.0.1", "100.100.100.200",
    "192.0.0.192", "198.18.0.1", "192.0.2.1", "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "::ffff:127.0.0.1",
    "::ffff:93.184.216.34", "::ffff:0:127.0.0.1", "::127.0.0.1", "::", "2001::1", "2001:db8::1", "fe80::1", "fe80::1%eth0",
    "fec0::1", "ff02::1", "fd00:ec2::254", "100::1", "4000::1", "5f00::1", "", "example.com", "127.1", "0x7f000001",
    "2130706433", "1.2.3.4.5", "١٢٧.0.0.1",
]  # fmt: skip
PUBLIC = ["93.184.216.34", "8.8.8.8", "168.63.129.17", "2606:2800:220:1::1", "2a00:1450::1"]
PRIVATE = ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12::1"]


@pytest.mark.parametrize(
    ("scope", "addresses"),
    [
        ("forbidden", FORBIDDEN),
        ("public", PUBLIC),
        ("private", PRIVATE),
        ("loopback", ["127.0.0.1", "127.9.9.9", "::1"]),
    ],
)
def test_every_address_has_one_kind(scope: str, addresses: list[str]) -> None:
    assert {address: scope_of(address) for address in addresses} == dict.fromkeys(addresses, scope)


@given(st.ip_addresses())
def test_what_the_library_calls_not_global_is_never_public(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert scope_of(str(address)) != "public"


@given(st.ip_addresses(v=4), st.sampled_from(["::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::"]))
def test_an_address_inside_another_is_never_called(inner: IPv4Address, prefix: str) -> None:
    address = f"{prefix}{inner}"
    assert scope_of(address) == ("loopback" if IPv6Address(address) == IPv6Address("::1") else "forbidden")


RULES = EgressRules.of(["api.example.com", "ports.example.com:8443", "bücher.example", "93.184.216.34"])


@pytest.mark.parametrize(
    ("scheme", "host", "port"),
    [
        ("https", "api.example.com", None),
        ("https", "API.Example.COM.", 443),
        ("https", "ports.example.com", 8443),
        ("https", "xn--bcher-kva.example", None),
        ("https", "93.184.216.34", 443),
    ],
)
def test_what_stands_in_the_list_may_be_called(scheme: str, host: str, port: int | None) -> None:
    RULES.check_destination(scheme, host, port)


@pytest.mark.parametrize(
    ("scheme", "host", "port", "code"),
    [
        ("https", "evil.example.com", None, "egress.not_allowed"),
        ("https", "api.example.com.evil.test", None, "egress.not_allowed"),
        ("https", "xapi.example.com", None, "egress.not_allowed"),
        ("https", "api.example.com", 8443, "egress.not_allowed"),
        ("https", "api.example.com", 80, "egress.not_allowed"),
        ("https", "ports.example.com", None, "egress.not_allowed"),
        ("http", "api.example.com", None, "egress.scheme"),
        ("http", "api.example.com", 443, "egress.scheme"),
        ("ftp", "api.example.com", None, "egress.scheme"),
        ("", "api.example.com", None, "egress.scheme"),
        ("https", "127.0.0.1", None, "egress.not_allowed"),
        ("https", "localhost", None, "egress.not_allowed"),
        ("https", "169.254.169.254", None, "egress.not_allowed"),
        ("https", "127.1", None, "egress.host_invalid"),
        ("https", "0x7f000001", None, "egress.host_invalid"),
        ("https", "2130706433", None, "egress.host_invalid"),
        ("https", "0177.0.0.1", None, "egress.host_invalid"),
        ("https", "api.example.com.1", None, "egress.host_invalid"),
        ("https", "", None, "egress.host_invalid"),
        ("https", "api example.com", None, "egress.host_invalid"),
        ("https", "api.example.com@evil.test", None, "egress.host_invalid"),
        ("https", "api..example.com", None, "egress.host_invalid"),
        ("https", "a" * 254, None, "egress.host_invalid"),
    ],
)
def test_nothing_else_is_called(scheme: str, host: str, port: int | None, code: str) -> None:
    with pytest.raises(EgressRefusedError) as caught:
        RULES.check_destination(scheme, host, port)
    assert caught.value.code == code
    assert not host or host not in caught.value.message


def test_a_user_part_is_refused_even_before_an_allowed_host() -> None:
    with pytest.raises(EgressRefusedError) as caught:
        RULES.check_destination("https", "api.example.com", None, userinfo=True)
    assert caught.value.code == "egress.userinfo"


@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16", "10.0.0.1", "[::ffff:127.0.0.1]"])
def test_standing_in_the_list_makes_no_address_good(address: str) -> None:
    with pytest.raises(EgressRefusedError) as caught:
        EgressRules.of([address], allow_private=False).check_destination("https", address, None)
    assert caught.value.code in {"egress.address_blocked", "egress.host_invalid"}


@pytest.mark.parametrize("bad", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "64:ff9b::1"])
def test_one_bad_address_condemns_the_name(bad: str) -> None:
    RULES.check_addresses("api.example.com", ["93.184.216.34", "2606:2800:220:1::1"])
    for addresses in ([bad], ["93.184.216.34", bad], [bad, "93.184.216.34"]):
        with pytest.raises(EgressRefusedError) as caught:
            RULES.check_addresses("api.example.com", addresses)
        assert caught.value.code == "egress.address_blocked"


def test_a_name_without_addresses_is_not_called() -> None:
    with pytest.raises(EgressRefusedError) as caught:
        RULES.check_addresses("api.example.com", [])
    assert caught.value.code == "egress.unresolved"


def test_private_addresses_are_for_the_platforms_own_destinations() -> None:
    rules = EgressRules.of(["agents.internal"], allow_private=True)
    rules.check_addresses("agents.internal", ["10.0.0.1", "fc00::1"])
    for bad in ("169.254.169.254", "168.63.129.16", "127.0.0.1"):
        with pytest.raises(EgressRefusedError):
            rules.check_addresses("agents.internal", [bad])


def test_this_machine_only_where_it_is_named_and_allowed() -> None:
    local = EgressRules.of(["127.0.0.1", "localhost:8080", "api.example.com"], allow_loopback=True)
    local.check_destination("http", "127.0.0.1", 49_152)
    local.check_destination("http", "localhost", 8080)
    local.check_addresses("localhost", ["127.0.0.1", "::1"])
    refused = [("http", "127.0.0.2", 80), ("http", "localhost", 8081), ("http", "::1", 80)]
    for scheme, host, port in refused:
        with pytest.raises(EgressRefusedError):
            local.check_destination(scheme, host, port)
    with pytest.raises(EgressRefusedError):
        local.check_addresses("api.example.com", ["127.0.0.1"])
    with pytest.raises(EgressRefusedError):
        local.check_addresses("localhost", ["93.184.216.34"])
    with pytest.raises(EgressRefusedError):
        EgressRules.of(["127.0.0.1"]).check_destination("http", "127.0.0.1", 80)


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.example.com", "https://api.example.com", "a/b", "a:0", "a:70000", "a:x", "a@b", "[::1", "2130706433"],
)
def test_an_entry_is_a_host_and_perhaps_a_port(entry: str) -> None:
    with pytest.raises(EgressRefusedError):
        parse_entry(entry)


def test_hosts_have_one_spelling() -> None:
    assert parse_entry("API.example.com:443") == ("api.example.com", 443)
    assert parse_entry("[0:0::1]:80") == ("::1", 80)
    assert normal_host("[::1]") == normal_host("0:0:0:0:0:0:0:1") == "::1"
