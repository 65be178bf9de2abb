"""A sink that keeps what an answer's writer hands it."""

from __future__ import annotations


class RecordingSink:
    """Implements ``AnswerSink``: ``pieces`` since the last restart, and the reasons of the restarts."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.restarts: list[str] = []

    async def write(self, text: str) -> None:
        """Keep a piece."""
        self.pieces.append(text)

    async def restart(self, reason: str) -> None:
        """Forget the pieces."""
        self.pieces.clear()
        self.restarts.append(reason)
