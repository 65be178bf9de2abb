"""Names beside ids: known ones only, from this machine, and never in place of the id."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from cli.audit_story import story
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.people import People, people_of
from engine.adapters.memory import SystemClock
from engine.domain.principal import Role
from engine.identity.development import DevelopmentIssuer, subject_of
from tests.unit.cli.api_double import RUN_ID, asking
from tests.unit.cli.test_audit_story import SUBMITTED

ANA = subject_of("contoso", "ana")
STRANGER = "11111111-2222-3333-4444-555555555555:66666666-7777-8888-9999-000000000000"


@pytest.fixture
def known(bare_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.delenv("LIVOA_PEOPLE", raising=False)

    def people(listed: Any = None, **options: Any) -> People:
        if listed is not None:
            (tmp_path / "people.json").write_text(listed if isinstance(listed, str) else json.dumps(listed))
        given = {"tenant": None, "user": None, "data": tmp_path} | options
        return people_of(argparse.Namespace(**given))

    return people


def test_the_subject_of_a_development_user_is_that_of_its_token(tmp_path: Path) -> None:
    import jwt

    issuer = DevelopmentIssuer.open(tmp_path, SystemClock(), environment="local")
    token = issuer.mint("contoso", "ana", [Role.RUNS_READ], audience="api://livoa")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert f"{claims['tid']}:{claims['oid']}" == ANA


def test_a_known_name_stands_beside_the_id_and_an_unknown_id_stays_alone(known: Any) -> None:
    assert known().shown(ANA) == f"{ANA} (ana)"
    assert known().shown(STRANGER) == STRANGER
    assert known(tenant="fabrikam").shown(ANA) == ANA, "ana of another tenant is somebody else"
    assert known(user="zoe").shown(subject_of("contoso", "zoe")).endswith("(zoe)")


def test_the_operators_list_names_others_by_subject_or_object(known: Any) -> None:
    assert known({STRANGER: "Zoë Example"}).shown(STRANGER) == f"{STRANGER} (Zoë Example)"
    by_object = known({STRANGER.rpartition(":")[2]: "Zoë\x1b[31m\nExample"})
    assert by_object.shown(STRANGER).startswith(f"{STRANGER} (Zoë")
    assert not {"\x1b", "\n"} & set(by_object.shown(STRANGER))


@pytest.mark.parametrize("listed", ["[]", "{", '{"a": 1}', '"ana"'])
def test_a_list_that_is_none_is_wrong_usage(known: Any, listed: str) -> None:
    with pytest.raises(CliError) as raised:
        known(listed)
    assert (raised.value.code, raised.value.exit_code) == ("cli.people", ExitCode.USAGE)


def test_a_list_that_was_named_must_be_there(known: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIVOA_PEOPLE", str(tmp_path / "nowhere.json"))
    with pytest.raises(CliError, match="no such file"):
        known()


def test_approvals_and_the_story_of_a_run_show_names_and_json_does_not(known: Any, connected: Any, double: Any) -> None:
    asked = asking() | {"requested_by": ANA, "decided_by": STRANGER, "status": "granted"}
    double.approvals = [asked]
    out = connected("approvals", RUN_ID).out
    assert f"requested by {ANA} (ana)" in out
    assert f"answered by {STRANGER}\n" in out
    assert connected("approvals", RUN_ID, "--json").json["approvals"] == [asked]
    lines = story([{**SUBMITTED, "actor": ANA}], known())
    assert f"by {ANA.rpartition(':')[2]} (ana) with app" in lines[1]
    assert "(" not in story([{**SUBMITTED, "actor": STRANGER}], known())[1]
