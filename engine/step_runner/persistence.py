"""Writing down what has already happened: a store that fails for a moment must not make a finished call look like a lost one.

Only for writes after the effect, all of them idempotent by key. Before it, a failing store keeps the effect from happening, and
that is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from engine.domain.errors import LivoaError

T = TypeVar("T")

PAUSES_S = (0.05, 0.25)
"""Before the second and the third try; longer trouble is the scheduler's: the call is repeated under its key."""


async def persistently(write: Callable[[], Awaitable[T]]) -> T:
    """The result of ``write``, tried again while the store says that it is unavailable (status 500 and above)."""
    for pause_s in PAUSES_S:
        try:
            return await write()
        except LivoaError as err:
            if err.status < 500:
                raise
        await asyncio.sleep(pause_s)
    return await write()
