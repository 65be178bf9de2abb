"""`./livoa tenant`: what is shown is what the API says, and a change names what it changes."""

from __future__ import annotations

import json

import pytest

CONFIG = {
    "tenant_id": "contoso",
    "version": 3,
    "status": "active",
    "bounds": {"max_steps": 200},
    "egress_hosts": ["a.test"],
}
PATH = "/api/tenants/contoso"


@pytest.fixture
def admin(connected, double):
    double.etag = '"3-abc"'
    double.scripts[f"GET {PATH}"] = lambda asked: (200, CONFIG)
    double.scripts[f"PUT {PATH}"] = lambda asked: (200, asked["body"] | {"version": 4})
    return connected


def test_show_prints_the_configuration(admin):
    assert admin("tenant", "show", "--json").json == CONFIG
    assert json.loads(admin("tenant", "show").out) == CONFIG


def test_set_changes_fields_and_names_what_it_changes(admin, double):
    outcome = admin("tenant", "set", "bounds.max_steps=50", "status=suspended", "egress_hosts=[]", "--json")
    assert (outcome.code, outcome.json["version"]) == (0, 4)
    put = double.heard[-1]
    assert put["headers"]["if-match"] == '"3-abc"'
    assert put["body"] == CONFIG | {"bounds": {"max_steps": 50}, "status": "suspended", "egress_hosts": []}


def test_set_shows_what_is_another_value_now_and_nothing_else(admin):
    outcome = admin("tenant", "set", "bounds.max_steps=50")
    assert outcome.out.splitlines() == [f"bounds.max_steps  {CONFIG['bounds']['max_steps']} → 50"]
    assert "version 4 holds now" in outcome.err


def test_set_can_replace_everything_from_a_file(admin, double, tmp_path):
    file = tmp_path / "contoso.json"
    file.write_text(json.dumps({"tenant_id": "contoso"}))
    assert admin("tenant", "set", "--file", str(file)).code == 0
    assert double.heard[-1]["body"] == {"tenant_id": "contoso"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("set",), ("set", "status"), ("set", "=1"), ("set", "a..b=1"), ("show", "status=x"), ("set", "status.deep=1"),
        ("set", "--file", "/nowhere/at/all"), ("forget",),
    ],
)  # fmt: skip
def test_wrong_usage_changes_nothing(admin, double, arguments):
    assert admin("tenant", *arguments).code == 2
    assert not any(asked["method"] == "PUT" for asked in double.heard)


def test_a_refusal_names_every_field(admin, double):
    errors = [{"code": "tenant.widens", "pointer": "/bounds/max_steps", "message": "goes beyond"}]
    body = {
        "type": "urn:livoa:problem:tenant.invalid",
        "title": "t",
        "status": 422,
        "detail": "no",
        "code": "tenant.invalid",
    }
    double.scripts[f"PUT {PATH}"] = lambda asked: (422, body | {"errors": errors})
    outcome = admin("tenant", "set", "bounds.max_steps=500")
    assert outcome.code == 1
    assert "/bounds/max_steps  tenant.widens" in outcome.err


def test_versions_are_a_line_each(admin, double):
    page = {
        "versions": [
            {"version": 3, "sha256": "b" * 64, "changed_by": "tid:\x1b[31moid", "changed_at": "2026-11-22T12:00:00Z"}
        ],
        "operator_version": 1,
        "next_below": 3,
    }
    double.scripts[f"GET {PATH}/versions"] = lambda asked: (200, page)
    outcome = admin("tenant", "versions", "--limit", "1")
    assert outcome.out.split()[:2] == ["3", "2026-11-22T12:00:00Z"]
    assert "\x1b" not in outcome.out
    assert "--below 3" in outcome.err
    assert admin("tenant", "versions", "--json").json == page


def test_a_development_token_for_it_carries_the_admins_role_alone(livoa, double, monkeypatch):
    import jwt

    monkeypatch.setenv("LIVOA_URL", double.url)
    double.scripts["GET /api/tenants/fabrikam"] = lambda asked: (200, CONFIG)
    assert livoa("tenant", "show", "--tenant", "fabrikam").code == 0
    token = double.heard[-1]["headers"]["authorization"].removeprefix("Bearer ")
    assert jwt.decode(token, options={"verify_signature": False})["roles"] == ["Tenants.Admin"]
