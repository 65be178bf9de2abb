"""`./livoa catalog check`: every fault with its place, and an exit code that a pipeline can stop on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.exit_codes import ExitCode
from cli.paths import ROOT


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "catalog", tmp_path / "catalog", ignore=shutil.ignore_patterns("samples")))


def test_the_shipped_catalog_is_good(livoa):
    said = livoa("catalog", "check", "--json")
    assert (said.code, said.json["ok"], said.json["errors"], said.json["not_looked_at"]) == (ExitCode.OK, True, [], [])
    assert set(said.json["counts"]) == {"capabilities", "playbooks", "tenants", "policy_sets"}
    assert livoa("catalog", "check").out.endswith("ok\n")


def break_capability(root: Path) -> None:
    (root / "capabilities" / "rag.search.yaml").write_text("name: [")


def break_playbook(root: Path) -> None:
    (root / "playbooks" / "find_notes.txt").touch()


def break_tenant(root: Path) -> None:
    page = root / "tenants" / "contoso.yaml"
    page.write_text(page.read_text().replace("display_name", "display_nam"))


def break_platform(root: Path) -> None:
    (root / "policies" / "platform" / "more.cedar").write_text("permit(")


def break_own(root: Path) -> None:
    (root / "policies" / "tenants" / "contoso" / "more.cedar").write_text("permit(")


def lose_own(root: Path) -> None:
    (root / "policies" / "tenants" / "nobody").mkdir()


def lose_guarantee(root: Path) -> None:
    (root / "policies" / "platform" / "taint.cedar").unlink()


@pytest.mark.parametrize(
    ("damage", "place", "code", "left"),
    [
        (break_capability, "capabilities/rag.search.yaml#", "catalog.page_invalid", "policies"),
        (break_playbook, "playbooks/find_notes.txt#", "catalog.page_invalid", "policies"),
        (break_tenant, "tenants/contoso.yaml#/display_nam", "tenants.page_invalid", ""),
        (break_platform, "policies/platform/more.cedar#L1", "policy.syntax", "policies of tenants"),
        (break_own, "policies/tenants/contoso/more.cedar#L1", "policy.syntax", ""),
        (lose_own, "policies/tenants/nobody", "policy.unavailable", ""),
        (lose_guarantee, "policies/plat.taint-selector", "policy.missing", ""),
    ],
)
def test_a_fault_anywhere_is_told_with_its_place(livoa, catalog, damage, place, code, left):
    damage(catalog)
    said = livoa("catalog", "check", "--catalog", str(catalog), "--json")
    assert (said.code, said.json["ok"]) == (ExitCode.FAILED, False)
    assert (code, place) in {(one["code"], one["pointer"]) for one in said.json["errors"]}
    assert [one.split(" (")[0] for one in said.json["not_looked_at"]] == ([left] if left else [])
    shown = livoa("catalog", "check", "--catalog", str(catalog))
    assert f"error  {place}  {code}" in shown.out
    assert "mend what is named" in shown.err


def test_faults_of_every_part_are_told_at_once(livoa, catalog):
    for damage in (break_capability, break_playbook, break_tenant):
        damage(catalog)
    said = livoa("catalog", "check", "--catalog", str(catalog), "--json").json
    assert {one["pointer"].split("/")[0] for one in said["errors"]} == {"capabilities", "playbooks", "tenants"}


def test_names_that_lead_nowhere_are_notes(livoa, catalog, monkeypatch):
    page = catalog / "tenants" / "fabrikam.yaml"
    page.write_text(page.read_text().replace("enabled_capabilities:", "enabled_capabilities:\n  - no.such", 1))
    own = catalog / "policies" / "tenants"
    (own / "contso").mkdir()
    for policies in (own / "contoso").glob("*.cedar"):
        (own / "contso" / policies.name).write_text(policies.read_text().replace("contoso", "contso"))
    monkeypatch.setenv("LIVOA_CATALOG", str(catalog))
    said = livoa("catalog", "check", "--json")
    assert said.code == ExitCode.OK
    assert {(one["code"], one["pointer"]) for one in said.json["notes"]} >= {
        ("tenants.unknown_name", "tenants/fabrikam.yaml#/enabled_capabilities/0"),
        ("policy.unknown_tenant", "policies/tenants/contso"),
    }


def test_a_folder_that_is_not_there_is_wrong_usage(livoa, tmp_path):
    assert livoa("catalog", "check", "--catalog", str(tmp_path / "no")).code == ExitCode.USAGE
