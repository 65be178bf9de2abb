"""Money and tokens together, and the totals of one account. Sums only; whose account it is, and under which key, is not here."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Amount:
    """Micro-USD and tokens, neither negative. ``ValueError`` otherwise."""

    micro_usd: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        if self.micro_usd < 0 or self.tokens < 0:
            raise ValueError("an amount in a budget is not negative")

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.micro_usd + other.micro_usd, self.tokens + other.tokens)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.micro_usd - other.micro_usd, self.tokens - other.tokens)


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that may be set aside and spent together. None: no limit of that kind."""

    micro_usd: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.micro_usd or 0) < 0 or (self.tokens or 0) < 0:
            raise ValueError("a limit of a budget is not negative")

    def cover(self, amount: Amount) -> bool:
        """True when ``amount`` stays within."""
        return (self.micro_usd is None or amount.micro_usd <= self.micro_usd) and (
            self.tokens is None or amount.tokens <= self.tokens
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """What is set aside and what is spent."""

    reserved: Amount = field(default=NOTHING)
    spent: Amount = field(default=NOTHING)

    def reserve(self, amount: Amount, limits: Limits) -> Totals | None:
        """With ``amount`` set aside; None when reserved + spent + ``amount`` would pass the limits."""
        if not limits.cover(self.reserved + self.spent + amount):
            return None
        return Totals(self.reserved + amount, self.spent)

    def settle(self, reserved: Amount, spent: Amount) -> Totals:
        """With ``reserved`` given back and ``spent`` counted, in full even when it is more than was set aside."""
        return Totals(self.reserved - reserved, self.spent + spent)
