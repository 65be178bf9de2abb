"""What a renderer makes of a cleaned text leads to allowed hosts only. The renderer is somebody else's reading of Markdown."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.links import clean_links

markdown_it = pytest.importorskip("markdown_it")

HOST = "docs.contoso.example"
GOOD = f"https://{HOST}/"
RENDER = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action", "data")]


def addresses(text: str) -> list[str]:
    """Every address in the HTML that the text is rendered to."""
    parser = _Addresses()
    parser.feed(RENDER.render(text))
    return parser.found


@pytest.mark.parametrize(
    "text",
    [
        "1. [a]: https:&#47;&#47;evil.example/x\n\n![a]",
        "1) [a]: <https:&#47;&#47;evil.example>\n\n![q][a]",
        "[a\nb]: https:&#47;&#47;evil.example/x\n\n![a\nb]",
        "[a\\]b]: https:&#47;&#47;evil.example/x\n\n![a\\]b]",
        "- - [a]: https&colon;&sol;&sol;evil.example\n\n![a]",
        "1. [a]: evil?q=1\n\n![a]",
        "![x](https&colon;&sol;&sol;evil.example)",
        "&#33;&#91;x&#93;&#40;https&colon;&#47;&#47;evil.example&#41;",
        "&amp;lt;img src=https:&amp;#47;&amp;#47;evil.example&amp;gt;",
        "<<img src=x>img src='https:&#47;&#47;evil.example'>",
        f"<{GOOD}|https://evil.example>",
    ],
)
def test_no_address_hides_from_the_renderer(text: str) -> None:
    cleaned, _ = clean_links(text, (HOST,))
    assert addresses(cleaned) == []
    assert clean_links(cleaned, (HOST,)) == (cleaned, 0)


def test_an_allowed_link_is_still_one_when_rendered() -> None:
    text = f"See [notes]({GOOD}a?b=1&c=2), <{GOOD}x> and AT&T."
    cleaned, removed = clean_links(text, (HOST,))
    assert addresses(cleaned)[0] == f"{GOOD}a?b=1&c=2"
    assert removed == 0


_PIECES = st.sampled_from(
    [
        *"[ ] ( ) ! < > : ` ' \" | * \\ a /x [a] ![a] ]( &#47; &colon; &lt; &#x5b; &amp; #47; https: // evil.example".split(),
        *("\n", "\n\n", " ", "    ", "1. ", "- ", "> ", "[a]: ", "<img src=", "<a href="),
        *("https://evil.example", "javascript:x", "mailto:e@evil.example", GOOD),
    ]
)


@settings(max_examples=500, deadline=None)
@given(text=st.lists(_PIECES, max_size=16).map("".join))
def test_no_arrangement_of_markdown_leads_elsewhere(text: str) -> None:
    cleaned, _ = clean_links(text, (HOST,))
    for address in addresses(cleaned):
        assert address.startswith(GOOD), (text, cleaned)
    assert clean_links(cleaned, (HOST,))[0] == cleaned
