"""Every file of the public JSON parsing suite as a body: ``y_`` is never a server error, ``n_`` is a 400, none hangs."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.http.api import Api
from tests.contract.plan_data.data import data_files

pytestmark = pytest.mark.asyncio(loop_scope="module")
FILES = data_files("json/parsing/test_parsing", "*.json")


@pytest.mark.skipif(not FILES, reason="the JSON parsing suite is absent: set LIVOA_TEST_DATA")
async def test_every_file_of_the_suite_gets_an_answer_that_fits(api: Api) -> None:
    wrong = []
    for path in FILES:
        answer = await asyncio.wait_for(api.send("POST", "/api/runs", body=path.read_bytes()), 10)
        allowed = {"y": {400, 422}, "n": {400}, "i": {400, 422}}[path.name[0]]
        # No file of the suite is a request, so even a good one is refused, but as a request and not as JSON.
        if answer.status not in allowed or answer.code is None:
            wrong.append((path.name, answer.status, answer.code))
    assert wrong == []
    assert len(FILES) > 300
    assert await api.is_untouched()
