"""Malformed requests: each gets the right problem, and none leaves a trace in the run store, the payloads or durable state."""

from __future__ import annotations

import pytest

from tests.contract.http.api import Api
from tests.contract.http.cases import BODIES, TARGETS, Case

over_one_api = pytest.mark.asyncio(loop_scope="module")


def test_there_are_at_least_forty() -> None:
    assert len(BODIES) >= 40
    assert len({case.name for case in BODIES}) == len(BODIES)


@over_one_api
@pytest.mark.parametrize("case", BODIES, ids=lambda case: case.name)
async def test_a_malformed_submission_is_refused(api: Api, case: Case) -> None:
    answer = await api.send("POST", "/api/runs", body=case.body, headers=case.headers)

    assert (answer.status, answer.code) == (case.status, case.code), answer.body[:500]
    assert set(case.pointers) <= set(answer.pointers)
    assert len(answer.body) < 20_000


@over_one_api
@pytest.mark.parametrize(("method", "target", "status", "code"), TARGETS)
async def test_a_bad_address_is_refused(api: Api, method: str, target: str, status: int, code: str) -> None:
    answer = await api.send(method, target)
    assert (answer.status, answer.code) == (status, code)


@over_one_api
async def test_nothing_was_left_behind(api: Api) -> None:
    """Runs last in this module, over the same API as all of the above."""
    assert await api.is_untouched()
