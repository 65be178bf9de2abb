"""Route templates and path decoding, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_host.errors import HostError
from local_host.http.routing import BadPathError, RouteTable, decode_path
from local_host.http.templates import parse_template
from local_host.specs import AuthLevel, FunctionSpec, HttpTrigger


def _match(template: str, path: str) -> dict[str, str] | None:
    return parse_template(template).match(decode_path(path))


def _spec(name: str, route: str, *methods: str) -> FunctionSpec:
    trigger = HttpTrigger("req", route, frozenset(methods) or None, AuthLevel.ANONYMOUS, True)
    return FunctionSpec(name, name, print, False, trigger)


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("a/{x}", "/a/1", {"x": "1"}),
        ("a/{x}", "/A/1", {"x": "1"}),
        ("a/{x}", "/a", None),
        ("a/{x}", "/a/1/2", None),
        ("a/{x?}", "/a", {}),
        ("a/{x=7}", "/a", {"x": "7"}),
        ("a/{x=7}", "/a/8", {"x": "8"}),
        ("a/{x:int=7}", "/a", {"x": "7"}),
        ("a/{*rest}", "/a", {}),
        ("a/{**rest}", "/a/b/c", {"rest": "b/c"}),
        ("a/{*rest:maxlength(3)}", "/a/b/c/d", None),
        ("files/{name}.{ext?}", "/files/report.pdf", {"name": "report", "ext": "pdf"}),
        ("files/{name}.{ext?}", "/files/report", {"name": "report"}),
        ("{from}-{to}", "/a-b-c", {"from": "a-b", "to": "c"}),
        ("{{x}}", "/{x}", {}),
        ("{x:bool}", "/TRUE", {"x": "TRUE"}),
        ("{x:bool}", "/yes", None),
        ("{x:alpha}", "/abcD", {"x": "abcD"}),
        ("{x:alpha}", "/abc1", None),
        ("{x:alpha:length(2,3)}", "/abcd", None),
        ("{x:int}", "/2147483648", None),
        ("{x:long}", "/2147483648", {"x": "2147483648"}),
        ("{x:range(5,6)}", "/5", {"x": "5"}),
        ("{x:range(5,6)}", "/7", None),
        ("{x:min(3)}", "/2", None),
        ("{x:max(3)}", "/4", None),
        ("{x:decimal}", "/1.5", {"x": "1.5"}),
        ("{x:decimal}", "/1e5", None),
        ("{x:double}", "/1e5", {"x": "1e5"}),
        ("{x:datetime}", "/2026-03-01", {"x": "2026-03-01"}),
        ("{x:datetime}", "/soon", None),
        (r"{x:regex(^\d{{3}}-\d$)}", "/123-4", {"x": "123-4"}),
        (r"{x:regex(^\d{{3}}-\d$)}", "/12-4", None),
        ("{x:minlength(2)}", "/a", None),
        ("{id:guid}", "/{3f2504e0-4f89-11d3-9a0c-0305e82c3301}", {"id": "{3f2504e0-4f89-11d3-9a0c-0305e82c3301}"}),
    ],
)
def test_templates_match_as_aspnet_does(template, path, values):
    assert _match(template, path) == values


@pytest.mark.parametrize(
    "template",
    [
        "{",
        "}",
        "a/{x",
        "{x}{y}",
        "{x}/{X}",
        "{*rest}/more",
        "a{*rest}",
        "{x?}-{y}",
        "{x:nonsense}",
        "{x:int(3)}",
        "{x:range(1)}",
        "{}",
        "{x=1?}",
        "{*x?}",
    ],
)
def test_a_bad_template_is_refused(template):
    with pytest.raises(HostError, match=r"host\.bad_route"):
        parse_template(template, where="f")


def test_more_specific_routes_win_in_any_order_of_registration():
    specs = [_spec("all", "{*rest}"), _spec("one", "a/{x}"), _spec("number", "a/{x:int}"), _spec("literal", "a/b")]
    for order in (specs, specs[::-1]):
        table = RouteTable(order, "api")
        chosen = {path: table.find("GET", f"/api/{path}").route.spec.name for path in ("a/b", "a/1", "a/c", "z")}
        assert chosen == {"a/b": "literal", "a/1": "number", "a/c": "one", "z": "all"}


def test_overlapping_routes_are_named_and_separate_ones_are_not():
    overlapping = RouteTable([_spec("one", "a/{x}", "GET"), _spec("two", "a/b", "GET")], "api").ambiguities()
    assert len(overlapping) == 1
    assert "one" in overlapping[0]
    assert "two" in overlapping[0]
    assert RouteTable([_spec("one", "a/{x}", "GET"), _spec("two", "a/b", "POST")], "api").ambiguities() == []
    assert RouteTable([_spec("one", "a/{x}"), _spec("two", "b/{x}"), _spec("three", "a")], "api").ambiguities() == []
    assert len(RouteTable([_spec("one", "a/{x?}"), _spec("two", "a")], "api").ambiguities()) == 1


def test_an_empty_prefix_serves_from_the_root():
    assert RouteTable([_spec("root", "")], "").find("GET", "/") is not None
    assert RouteTable([_spec("root", "")], "api").find("GET", "/api/") is not None


@given(st.text(max_size=60))
def test_decoding_any_path_gives_plain_segments_or_a_refusal(path):
    try:
        segments = decode_path(path)
    except BadPathError:
        assert "\0" in path or "%00" in path
        return
    assert all(segment not in {"", ".", ".."} and "/" not in segment for segment in segments)


@given(st.lists(st.text(min_size=1, max_size=8).filter(lambda s: "\0" not in s and s not in {".", ".."}), max_size=4))
def test_decoding_undoes_encoding_except_for_slashes(segments):
    from urllib.parse import quote

    encoded = "/" + "/".join(quote(segment, safe="") for segment in segments)
    assert decode_path(encoded) == tuple(segment.replace("/", "%2F") for segment in segments)
