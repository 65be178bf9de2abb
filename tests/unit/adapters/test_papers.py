"""What a call shows at the agent's door, through all the requests that it takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.adapters.http_agents.papers import NoPapersError, Papers
from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteRequest
from engine.domain.grants import GRANT_HEADER, MAX_GRANT_LIFETIME_S

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
REQUEST = ExecuteRequest(
    tenant_id="contoso",
    run_id="r",
    step_id="s",
    attempt=1,
    capability="probe.count",
    inputs={},
    idempotency_key="r/s",
    deadline_at=NOW + timedelta(hours=10),
)


class Desk:
    """Tokens and grants by number, at an instant that tests move."""

    def __init__(self) -> None:
        self.now, self.tokens, self.grants = NOW, 0, 0
        self.no_token = self.no_grant = False

    async def token(self) -> str:
        if self.no_token:
            raise LivoaError("credential.unavailable", "secret reason", status=503)
        self.tokens += 1
        return f"token-{self.tokens}"

    async def mint(self, request: ExecuteRequest) -> str:
        if self.no_grant:
            raise LivoaError("audit.key_unavailable", "secret reason", status=503)
        assert request == REQUEST
        self.grants += 1
        return f"grant-{self.grants}"

    async def jwks(self) -> dict[str, Any]:
        return {"keys": []}

    def papers(self) -> Papers:
        return Papers(self.token, self, REQUEST, lambda: self.now)


async def test_a_call_of_many_hours_never_shows_a_grant_that_is_about_to_run_out() -> None:
    desk = Desk()
    papers = desk.papers()
    shown: dict[str, datetime] = {}
    for _ in range(3_600):
        grant = (await papers.headers())[GRANT_HEADER]
        minted_at = shown.setdefault(grant, desk.now)
        assert desk.now - minted_at < timedelta(seconds=MAX_GRANT_LIFETIME_S / 2)
        desk.now += timedelta(seconds=10)
    assert desk.grants == 36_000 / (MAX_GRANT_LIFETIME_S / 2), "and no more are signed than are needed"


async def test_a_grant_from_the_future_is_not_shown() -> None:
    """The clock was set back during the call: every agent would refuse it until the clock has caught up."""
    desk = Desk()
    papers = desk.papers()
    first = (await papers.headers())[GRANT_HEADER]
    desk.now -= timedelta(hours=1)
    assert (await papers.headers())[GRANT_HEADER] != first
    assert desk.grants == 2


async def test_the_token_is_asked_for_each_time() -> None:
    desk = Desk()
    papers = desk.papers()
    assert [(await papers.headers())["Authorization"] for _ in range(2)] == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize(("missing", "code"), [("no_token", "agent.no_credential"), ("no_grant", "agent.no_grant")])
async def test_without_papers_there_is_no_call_and_trying_again_may_help(missing: str, code: str) -> None:
    desk = Desk()
    setattr(desk, missing, True)
    with pytest.raises(NoPapersError) as caught:
        await desk.papers().headers()
    error = caught.value.failure.error
    assert (error.code, error.retryable) == (code, True)
    assert "secret reason" not in error.message
