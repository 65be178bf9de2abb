"""Where a call to the outside may go: the one set of rules behind every outgoing HTTP connection. Pure; sockets are adapters.

A name proves nothing about the address behind it, so both are checked: the destination (scheme, host, port) against an allow-list
before anything is resolved, and every address of the name before one of them is connected to. An address that stands in the
allow-list by itself is no exception: link-local, metadata and embedding addresses are refused however they are named.

Facts: ``ipaddress.is_global`` is true for 168.63.129.16 (the Azure host's own address), NAT64, 6to4, the 6to4 relays and
multicast; all are listed here. IPv6 global unicast is 2000::/3 (RFC 4291).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal

from engine.domain.errors import LivoaError

Scope = Literal["public", "private", "loopback", "forbidden"]

_DEFAULT_PORTS = {"https": 443, "http": 80}
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ENTRY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:/?#@\[\]\s]+)(?::([1-9][0-9]{0,4}))?")

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
_FORBIDDEN = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "100.64.0.0/10", "168.63.129.16/32", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24",
            "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            # Each of these can carry an IPv4 address, so that what is checked and what is reached differ.
            "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/23", "2002::/16",
            "100::/64", "2001:db8::/32", "3fff::/20", "5f00::/16", "fe80::/10", "fec0::/10", "ff00::/8",
            "fd00:ec2::/32",  # metadata of another cloud, inside the private range
        ),
    )
)  # fmt: skip
_GLOBAL_V6 = ip_network("2000::/3")
_MAX_LITERAL_CHARS = 64
"""No address is longer, with a zone of any name that interfaces have."""


class EgressRefusedError(LivoaError):
    """A destination or an address that must not be connected to. The message names neither."""

    def __init__(self, code: str) -> None:
        super().__init__(code, _WORDS[code], status=502)


_WORDS = {
    "egress.scheme": "Calls to the outside use https; http is for this machine only.",
    "egress.userinfo": "An address with a user part is not called.",
    "egress.host_invalid": "This host is neither a name nor an address in its ordinary form.",
    "egress.not_allowed": "This host and port are not among those allowed.",
    "egress.address_blocked": "The host leads to an address that must not be called.",
    "egress.unresolved": "The host has no address.",
    "egress.redirect": "The service redirects; redirects are not followed.",
    "egress.too_large": "The answer is too large.",
    "egress.encoding": "The answer has a content encoding that was not asked for, or a damaged one.",
    "egress.timeout": "The service did not answer in time.",
    "egress.unreachable": "The service cannot be reached.",
}


def scope_of(address: str) -> Scope:
    """Which kind of address this is; ``forbidden`` also for text that is no address at all."""
    found = _literal(address.partition("%")[0])
    return _scope_of(found) if found is not None else "forbidden"


@lru_cache(maxsize=1_024)
def _scope_of(found: IPv4Address | IPv6Address) -> Scope:
    if any(found in network for network in _LOOPBACK):
        return "loopback"
    if any(found in network for network in _FORBIDDEN):
        return "forbidden"
    if any(found in network for network in _PRIVATE):
        return "private"
    if found.version == 6 and found not in _GLOBAL_V6:
        return "forbidden"
    return "public" if found.is_global and not found.is_multicast else "forbidden"


def normal_host(host: str) -> str:
    """The one spelling of a host: lower case, A-labels, no final dot; an address in its shortest form.

    Raises ``EgressRefusedError("egress.host_invalid")`` for what is neither, and for the numeric forms (``127.1``,
    ``0x7f000001``, ``2130706433``) that some resolvers take for an address.
    """
    text = host.strip("[]").removesuffix(".").lower() if host.startswith("[") else host.removesuffix(".").lower()
    literal = _literal(text)
    if literal is not None:
        return str(literal)
    try:
        text = text.encode("idna").decode("ascii") if not text.isascii() else text
    except UnicodeError as err:
        raise EgressRefusedError("egress.host_invalid") from err
    labels = text.split(".")
    # A name whose last label is a number is an address to some parsers (WHATWG URL, section 3.5).
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)) or _NUMBER.fullmatch(labels[-1]):
        raise EgressRefusedError("egress.host_invalid")
    return text


def _literal(text: str) -> IPv4Address | IPv6Address | None:
    return _address_of(text) if len(text) <= _MAX_LITERAL_CHARS else None


@lru_cache(maxsize=1_024)
def _address_of(text: str) -> IPv4Address | IPv6Address | None:
    # Kept, as what follows from it is: every call of an agent asks for the same few addresses eight times.
    try:
        return ip_address(text)
    except ValueError:
        return None


def is_loopback_host(host: str) -> bool:
    """True for ``localhost`` and loopback addresses, in the spelling of ``normal_host``."""
    return host == "localhost" or (_literal(host) is not None and scope_of(host) == "loopback")


def parse_entry(entry: str) -> tuple[str, int | None]:
    """An entry of an allow-list, ``host`` or ``host:port``, as (normal host, port or None).

    Raises ``EgressRefusedError("egress.host_invalid")``. There are no wildcards.
    """
    match = _ENTRY.fullmatch(entry)
    port = int(match[2]) if match is not None and match[2] else None
    if match is None or (port is not None and port > 65_535):
        raise EgressRefusedError("egress.host_invalid")
    return normal_host(match[1]), port


@dataclass(frozen=True, slots=True)
class EgressRules:
    """Which destinations may be called, and which kinds of address they may have.

    An entry without a port means the default port of its scheme; for this machine, where ports are free, any port.
    ``allow_private`` is for destinations that the platform configures (private endpoints), never for those that data names.
    ``allow_loopback`` lets loopback hosts that stand in the list be called; no other host ever leads to a loopback address.
    """

    entries: frozenset[tuple[str, int | None]]
    allow_private: bool = False
    allow_loopback: bool = False

    @classmethod
    def of(cls, entries: Iterable[str], *, allow_private: bool = False, allow_loopback: bool = False) -> EgressRules:
        """Rules of these allow-list entries. Raises ``EgressRefusedError("egress.host_invalid")``."""
        return cls(frozenset(map(parse_entry, entries)), allow_private, allow_loopback)

    def check_destination(self, scheme: str, host: str, port: int | None, *, userinfo: bool = False) -> None:
        """Raises ``EgressRefusedError``: ``egress.scheme``, ``.userinfo``, ``.host_invalid`` or ``.not_allowed``."""
        if userinfo:
            raise EgressRefusedError("egress.userinfo")
        normal = normal_host(host)
        loopback = is_loopback_host(normal)
        default = _DEFAULT_PORTS.get(scheme)
        if default is None or (scheme == "http" and not loopback):
            raise EgressRefusedError("egress.scheme")
        wanted = default if port is None else port
        listed = (normal, wanted) in self.entries
        by_default = (normal, None) in self.entries and (loopback or wanted == default)
        if not (listed or by_default) or (loopback and not self.allow_loopback):
            raise EgressRefusedError("egress.not_allowed")
        if _literal(normal) is not None:
            self.check_addresses(normal, [normal])

    def check_addresses(self, host: str, addresses: Sequence[str]) -> None:
        """Raises ``EgressRefusedError`` unless there are addresses of ``host`` and every one of them may be connected to.

        One bad address condemns the name: which of them is connected to is a race that its owner could win.
        """
        if not addresses:
            raise EgressRefusedError("egress.unresolved")
        loopback = is_loopback_host(normal_host(host))
        for address in addresses:
            scope = scope_of(address)
            allowed = (
                (loopback and self.allow_loopback and scope == "loopback")
                or (not loopback and scope == "public")
                or (not loopback and self.allow_private and scope == "private")
            )
            if not allowed:
                raise EgressRefusedError("egress.address_blocked")

    def permits_socket(self, address: str) -> bool:
        """Whether a socket may be connected to ``address``, whatever name led to it: the last fence, for literals too."""
        match scope_of(address):
            case "public":
                return True
            case "private":
                return self.allow_private
            case "loopback":
                return self.allow_loopback and any(is_loopback_host(host) for host, _ in self.entries)
            case "forbidden":
                return False
