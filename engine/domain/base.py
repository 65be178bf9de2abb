"""The base of every model on the wire or in a store: frozen, strict about types, closed against unknown fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

JsonValue = Any
"""Any JSON value. Structure is checked by JSON Schema where it matters, so the static type stays open."""

JsonObject = dict[str, Any]


class Frozen(BaseModel):
    """An immutable model that refuses unknown fields. Strictness is per field where the wire needs it."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _to_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""An aware datetime, normalised to UTC. A naive one is refused."""


def iso_utc(value: datetime) -> str:
    """RFC 3339 text with microseconds and a literal ``Z``: sorts as text, has one spelling per instant."""
    # The same text as by strftime, in a tenth of the time. What it ends with is the offset, +00:00.
    return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
