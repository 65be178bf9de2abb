"""Where a Cosmos DB is. Apart from the stores in it, so that reading settings loads none of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CosmosSettings:
    """Where the database is. Without a ``key`` the app's own identity is used."""

    endpoint: str
    database: str = "livoa"
    key: str | None = field(default=None, repr=False)
