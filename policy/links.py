"""Links and images of a text, taken out unless their host is allowed: looking at an answer must not carry data away. Pure.

Closed by default: what could be read as an address, in Markdown, HTML or bare, stays only when it is plainly an https URL of an
allowed host. Relative destinations, other schemes, credentials, ports and HTML go. The words of a link stay, its address goes.
Character references are resolved first, because renderers resolve them in addresses, where they hide the punctuation.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

REMOVED = "(address removed)"
_MAX_ROUNDS = 8
_TAG = re.compile(r"<(?=[A-Za-z/!?])[^<>]*(?:>|\Z)")
_REFERENCE = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_ANY_DEFINITION = re.compile(r"\]:")
"""A definition may stand in a list item, a quotation, or have a label of several lines: parted from its colon it is none."""
_DEFINITION = re.compile(r"(?m)^[ \t>*+-]{0,20}\[[^\]\n]{1,1000}\]:")
_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]{1,30}:)"
_BARE = re.compile(
    rf"{_SCHEME}?(?:/|\\){{2,}}[^\s<>\"'`]*"
    r"|(?i:\b(?:javascript|data|vbscript|mailto|file|blob|tel|sms|ftp|xmpp|about|cid):)(?=\S)[^\s<>\"'`]*"
    r"|(?i:\bwww\.)[^\s<>\"'`]+"
    r"|[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,63}(?=\S*[?&=])[^\s<>\"'`]*"
)
_TRAILING = ".,;:!?)*_]"


def clean_links(text: str, allowed_hosts: Collection[str]) -> tuple[str, int]:
    """The text without links and images to other hosts, and how many addresses were taken out.

    ``allowed_hosts`` are exact host names; a subdomain is another host. Cleaning a cleaned text changes nothing.
    """
    hosts = frozenset(host.lower() for host in allowed_hosts)
    removed = 0
    for _ in range(_MAX_ROUNDS):
        before = text
        text, count = _one_round(text, hosts)
        removed += count
        if text == before:
            return text, removed
    # Something keeps putting itself together from what is left: then nothing that could make up an address stays.
    return re.sub(r"[\[\]()<>]|[/\\]{2,}", " ", text.replace(":", " ")), removed + 1


def allowed(address: str, hosts: Collection[str]) -> bool:
    """True when the address is an https URL of one of the hosts, with nothing in it that a reader could take otherwise."""
    if not re.fullmatch(r"https://[A-Za-z0-9.-]{1,253}(?:[/?#][\x21-\x7e]*)?", address) or "\\" in address:
        return False
    if "//" in address[len("https://") :]:  # where one address ends and the next begins is the reader's opinion
        return False
    try:
        parts = urlsplit(address)
        return parts.hostname in hosts and parts.port is None and parts.username is None
    except ValueError:
        return False


def _plain(text: str) -> str:
    """Character references resolved, and nothing left that one cannot see."""
    text = _REFERENCE.sub(lambda match: html.unescape(match[0]), text)
    return "".join(
        char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cf", "Cc", "Cs", "Co")
    )


def _one_round(text: str, hosts: Collection[str]) -> tuple[str, int]:
    text, tags = _TAG.subn(_autolink(hosts), _plain(text))
    removed = tags - text.count("\x00")
    text = text.replace("\x00", "")
    text, definitions = _DEFINITION.subn(" ", text)
    text, others = _ANY_DEFINITION.subn("] :", text)
    text, links = _inline(text, hosts)
    text, bare = _bare(text, hosts)
    return text, removed + definitions + others + links + bare


def _autolink(hosts: Collection[str]) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        inner = match[0][1:-1]
        return f"{inner}\x00" if allowed(inner, hosts) else ""

    return replace


def _inline(text: str, hosts: Collection[str]) -> tuple[str, int]:
    """Without the inline links and images whose destination is not allowed; their words stay."""
    removed, at = 0, 0
    while (at := text.find("](", at)) >= 0:
        end = _closing(text, at + 1)
        destination = text[at + 2 : end].strip()
        address = html.unescape(destination.split(None, 1)[0] if destination else "").strip("<>")
        if allowed(address, hosts):
            at += 2
            continue
        opening = _opening(text, at)
        image = 1 if opening > 0 and text[opening - 1] == "!" else 0
        words = text[opening + 1 : at] if opening >= 0 else text[:at]
        text = (text[: opening - image] if opening >= 0 else "") + words + text[end + 1 :]
        at = max(0, at - 1 - image)
        removed += 1
    return text, removed


def _closing(text: str, at: int) -> int:
    """Where the parenthesis at ``at`` is closed; the end of the text when it is not."""
    depth = 0
    for place in range(at, len(text)):
        if text[place] == "(":
            depth += 1
        elif text[place] == ")":
            depth -= 1
            if depth == 0:
                return place
    return len(text)


def _opening(text: str, at: int) -> int:
    """Where the bracket that closes at ``at`` is opened, or -1."""
    depth = 0
    for place in range(at, -1, -1):
        if text[place] == "]":
            depth += 1
        elif text[place] == "[":
            depth -= 1
            if depth == 0:
                return place
    return -1


def _bare(text: str, hosts: Collection[str]) -> tuple[str, int]:
    removed = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal removed
        address = match[0].rstrip(_TRAILING)
        if allowed(address, hosts):
            return match[0]
        removed += 1
        return REMOVED + match[0][len(address) :] if address else match[0]

    return _BARE.sub(replace, text), removed
