"""Budget accounts as an earlier build wrote them: one document with a map of all keys. Read here, written nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator

from engine.adapters.cosmos.repository import Document
from engine.limits.amounts import Amount, Limits
from engine.limits.budget import BudgetAccount


def is_former(found: Document) -> bool:
    """Whether this is an account of that layout."""
    return "document" in found


def account_of(found: Document) -> BudgetAccount:
    """The account with all its keys."""
    return BudgetAccount.from_json(json.loads(found["document"]))


def daily_limits_of(found: Document) -> Limits:
    """What the tenant's day may use, as the run was admitted with."""
    return Limits(*found["daily"])


def reservations_of(found: Document) -> Iterator[tuple[str, Amount, str, bool]]:
    """Each key, its amount (what was spent where it is settled: no more is known of it), its day, and whether it is open."""
    account, days = account_of(found), found["days"]
    for entries, is_open in ((account.open, True), (account.settled, False)):
        for key, amount in entries.items():
            yield key, amount, days[key], is_open
