"""Which hosts a value points to: what a client could connect to when it is handed this text.

Clients disagree about odd URLs (RFC 3986 and the WHATWG URL standard end an authority at different characters), so nothing odd is
interpreted: user parts, backslashes, percent signs and white space in an authority, numeric addresses in disguise and names that
cannot be spelled are ``UNREADABLE``, which no allow-list contains. Addresses are not resolved here; sockets check those again.

A host is written as in allow-lists: ``host`` when it is reached on port 443, else ``host:port``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.domain.base import JsonValue
from engine.domain.egress import EgressRefusedError, normal_host, parse_entry

UNREADABLE_HOST = "<unreadable>"
"""Stands for a host that cannot be told. It is no host name, so it matches no entry of any list."""

_HTTPS_PORT = 443
_PORTS = {
    "https": 443, "wss": 443, "http": 80, "ws": 80, "ftp": 21, "ftps": 990, "sftp": 22, "ssh": 22, "git": 9418, "gopher": 70,
    "ldap": 389, "ldaps": 636, "smb": 445, "telnet": 23, "tftp": 69, "rtsp": 554, "redis": 6379, "amqp": 5672, "amqps": 5671,
}  # fmt: skip
_DROPPED = str.maketrans("", "", "\t\r\n")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_AUTHORITY = re.compile(r"[/\\]*([^/\\?#]*)([\\]?)")
_ODD = re.compile(r"[@%\\<>\"^`{|}\x00-\x20\x7f-\x9f]|\s")
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::([0-9]{0,10}))?")
_AMBIGUOUS = re.compile("[\u00df\u03c2\u200c\u200d\u1e9e]")
"""Characters on which the two versions of IDNA lead to different names (UTS 46, section 7)."""
HOLE = "\ue000"
"""Stands for a piece of text that is not known yet (a private-use character: no host contains it)."""


def hosts_of(value: JsonValue, *, is_address: bool = False) -> Iterator[str]:
    """The hosts of every URL in a value: strings that are URLs as a whole. With ``is_address`` any text is taken for one."""
    stack: list[JsonValue] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            yield from host_of_text(node, is_address=is_address)
        elif isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            stack.extend(node.values())


def host_of_text(text: str, *, is_address: bool = False) -> tuple[str, ...]:
    """The hosts this text leads to as a URL: none, one, or ``UNREADABLE_HOST`` beside the likeliest.

    Nothing when the host is not known yet (it has a ``HOLE`` in it).
    """
    if not is_address and ":" not in text and text[:1] not in ("/", "\\"):
        return ()
    cut = text.strip("".join(map(chr, range(33)))).translate(_DROPPED)
    scheme = _SCHEME.match(cut)
    if scheme is not None and _leads_out(scheme[1].lower(), cut[scheme.end() :]):
        return _authority(cut[scheme.end() :], _PORTS.get(scheme[1].lower()))
    if cut[:2].replace("\\", "/") == "//":
        return _authority(cut, _HTTPS_PORT)
    if not is_address or not cut:
        return ()
    if cut[0] == "/" or (scheme is not None and not _looks_like_host_port(cut)):
        return () if cut[0] == "/" else (UNREADABLE_HOST,)
    return _authority("//" + cut, _HTTPS_PORT)


def _leads_out(scheme: str, rest: str) -> bool:
    return scheme in _PORTS or rest[:2].replace("\\", "/") == "//"


def _looks_like_host_port(text: str) -> bool:
    return re.fullmatch(r"[^:/?#\\]+:[0-9]{1,5}(?:[/?#].*)?", text, re.DOTALL) is not None


def _authority(rest: str, default_port: int | None) -> tuple[str, ...]:
    match = _AUTHORITY.match(rest)
    authority = match[1] if match is not None else ""
    if HOLE in authority:
        return ()
    odd = match is None or bool(match[2]) or "\\" in rest[: match.end()] or bool(_ODD.search(authority))
    host = _host(authority.rpartition("@")[2], default_port)
    if not odd:
        return (host,)
    return (host, UNREADABLE_HOST) if host != UNREADABLE_HOST else (UNREADABLE_HOST,)


def _host(text: str, default_port: int | None) -> str:
    match = _HOST_PORT.fullmatch(text)
    if match is None or _ODD.search(text) or _AMBIGUOUS.search(text):
        return UNREADABLE_HOST
    port = int(match[2]) if match[2] else None
    if port is not None and not 0 < port <= 65_535:
        return UNREADABLE_HOST
    try:
        host = normal_host(match[1])
    except EgressRefusedError:
        return UNREADABLE_HOST
    reached = port if port is not None else default_port
    if reached is None:  # a scheme nobody knows says nothing about where it leads
        return UNREADABLE_HOST
    return _spelled(host, reached)


def _spelled(host: str, port: int) -> str:
    if port == _HTTPS_PORT:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def entry_of(entry: str) -> str:
    """An entry of an allow-list in the spelling used here; ``UNREADABLE_HOST`` for one that is none."""
    try:
        host, port = parse_entry(entry)
    except EgressRefusedError:
        return UNREADABLE_HOST
    return _spelled(host, port or _HTTPS_PORT)
