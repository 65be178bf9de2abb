"""What an agent says of those it turned away: who and why, without content, bounded, and counted in full."""

from __future__ import annotations

import json
import logging

import aiohttp
import pytest

from agent_kit.auth import MAX_TOKEN_BYTES
from agent_kit.problems import RefusedError
from agent_kit.refusals import MAX_RECORDS, METRIC, WINDOW_S, Refusals, subject_sha256
from agent_kit.serve import JsonLines
from engine.domain.grants import GRANT_HEADER
from tests.contract.agents.harness import Stand, request

SECRET = "a-secret-input"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict]:
    found = [record for record in caplog.records if record.name == "agent_kit.refusals"]
    return [json.loads(JsonLines().format(record)) for record in found]


async def answered(stand: Stand, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, stand.url + path, headers=headers, data=body) as response,
    ):
        return response.status, await response.text()


async def test_who_is_turned_away_is_on_record_without_content_and_counted(
    probe_stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = request("probe.hold", note=SECRET).model_dump_json().encode()
    token = await _token(probe_stand)
    head, content, signature = token.split(".")
    forged = f"{head}.{content}.{signature[::-1]}"
    json_body = {"content-type": "application/json"}
    assert (await answered(probe_stand, "POST", "/execute", json_body, body))[0] == 401
    assert (await answered(probe_stand, "POST", "/execute", {"authorization": f"Bearer {forged}"} | json_body, body))[
        0
    ] == 401
    assert (await answered(probe_stand, "POST", "/execute", {"authorization": f"Bearer {token}"} | json_body, body))[
        0
    ] == 403
    grant = await probe_stand.grants.mint(request("probe.hold"))
    papers = {"authorization": f"Bearer {token}", GRANT_HEADER: grant, "idempotency-key": "r/s"} | json_body
    assert (await answered(probe_stand, "POST", "/execute", papers, body))[0] == 403  # the inputs are others
    assert (await answered(probe_stand, "GET", f"/{SECRET}/x", {}))[0] == 404

    found = lines(caplog)
    told = [(one["code"], one["reason"], one["place"], one["capability"], one["subject_verified"]) for one in found]
    assert told == [
        ("auth.token_missing", "Not authenticated", "execute", None, False),
        ("auth.token_invalid", "Not authenticated", "execute", None, False),
        ("grant.missing", "Not allowed", "execute", None, True),
        ("grant.mismatch", "Not allowed", "execute", "probe.hold", True),
        ("agent.no_such_route", "Not found", "elsewhere", None, False),
    ]
    own = subject_sha256([f"Bearer {token}"])
    assert own is not None
    assert [one["subject_sha256"] for one in found] == [None, own, own, own, None]
    text = json.dumps(found) + "".join(
        each.getMessage() for each in caplog.records if each.name.startswith("agent_kit")
    )
    assert SECRET not in text
    assert not any(secret in text for secret in (token, forged, grant, signature))

    status, metrics = await answered(probe_stand, "GET", "/metrics", {})
    assert status == 200
    assert f'{METRIC}{{code="grant.mismatch",place="execute"}} 1\n' in metrics
    assert f'{METRIC}{{code="agent.no_such_route",place="elsewhere"}} 1\n' in metrics
    assert SECRET not in metrics


async def _token(stand: Stand) -> str:
    return stand.issuer.mint_for_agents(audience="api://livoa-agents", lifetime_s=60)


def test_a_flood_is_counted_in_full_and_recorded_in_part(caplog: pytest.LogCaptureFixture) -> None:
    now = 1_000.0
    refusals = Refusals(lambda: now)
    for _ in range(MAX_RECORDS + 7):
        refusals.add(RefusedError(401, "auth.token_missing", ""), place="execute")
    assert len(lines(caplog)) == MAX_RECORDS
    now += WINDOW_S
    refusals.add(RefusedError(401, "auth.token_missing", ""), place="execute")
    assert lines(caplog)[-1]["left_out"] == 7
    assert refusals.exposition().endswith(f" {MAX_RECORDS + 8}\n")


def test_later_is_counted_and_not_on_record(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    refusals.add(RefusedError(429, "agent.busy", "", retryable=True), place="execute")
    assert lines(caplog) == []
    assert f'{METRIC}{{code="agent.busy",place="execute"}} 1\n' in refusals.exposition()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Bearer"],
        ["Bearer x"],
        ["Bearer a.b.c"],
        ["Bearer e30.e30.e30"],
        ["Bearer " + "x" * (MAX_TOKEN_BYTES + 1)],
        ["a b", "c d"],
    ],
)
def test_what_names_nobody_has_no_subject(headers: list[str]) -> None:
    assert subject_sha256(headers) is None
