"""What a call shows at the agent's door: a token that says who calls, and a grant that says what may be done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from engine.adapters.http_agents.answers import failed
from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteFailed, ExecuteRequest
from engine.domain.grants import GRANT_HEADER, MAX_GRANT_LIFETIME_S
from engine.ports.grants import Grants

Credential = Callable[[], Awaitable[str]]
"""Gives a bearer token for agents. Called for every request; caching is its business."""

_RENEW_AFTER = timedelta(seconds=MAX_GRANT_LIFETIME_S / 2)


class NoPapersError(Exception):
    """Token or grant could not be had, so nothing has reached the agent. ``failure`` is what the call comes to."""

    def __init__(self, failure: ExecuteFailed) -> None:
        super().__init__(failure.error.code)
        self.failure = failure


class Papers:
    """The papers of one call, through all the requests that it takes. The grant is renewed when half of its life is over, and
    when the clock was set back: agents refuse what was issued in the future."""

    def __init__(
        self, credential: Credential, grants: Grants, request: ExecuteRequest, now: Callable[[], datetime]
    ) -> None:
        self._credential, self._grants, self._request, self._now = credential, grants, request, now
        self._grant = ""
        self._minted_at: datetime | None = None

    async def headers(self) -> dict[str, str]:
        """Raises ``NoPapersError``: ``agent.no_credential`` or ``agent.no_grant``."""
        try:
            token = await self._credential()
        except LivoaError as error:
            raise NoPapersError(
                failed("agent.no_credential", f"No token for the agent: {error.code}.", retryable=True)
            ) from error
        now = self._now()
        if self._minted_at is None or not timedelta() <= now - self._minted_at < _RENEW_AFTER:
            try:
                self._grant = await self._grants.mint(self._request)
            except LivoaError as error:
                raise NoPapersError(
                    failed("agent.no_grant", f"No grant for the call: {error.code}.", retryable=True)
                ) from error
            self._minted_at = now
        return {"Authorization": f"Bearer {token}", GRANT_HEADER: self._grant}
