"""The value an activity returns: expected failures are values, because the durable SDK delivers exceptions as bare text.

An outcome crosses durable history, so it holds codes and references, never inputs, outputs or messages with content.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from engine.domain.base import Frozen

LeftS = Annotated[float | None, Field(allow_inf_nan=False)]


class _Outcome(Frozen):
    """Read by orchestrators that may be of another build than who answered: a field that this build does not know is an optional
    one of a later build, and is passed over; what means something else has a status of its own. What is known is read strictly.
    """

    model_config = ConfigDict(extra="ignore", strict=True)


class Succeeded(_Outcome):
    """The step has an output in the payload store. ``item_count`` is set for maps."""

    status: Literal["succeeded"] = "succeeded"
    item_count: int | None = None


class Failed(_Outcome):
    """The attempt failed. ``retryable`` says whether another attempt could help."""

    status: Literal["failed"] = "failed"
    code: str
    retryable: bool = False
    retry_after_s: float | None = None


class Denied(_Outcome):
    """Policy said no; the step never ran and will not be retried."""

    status: Literal["denied"] = "denied"
    code: str


class Skipped(_Outcome):
    """The step did not run because its ``when`` was false or an input's producer was skipped."""

    status: Literal["skipped"] = "skipped"
    code: str


class Cancelled(_Outcome):
    """The run was cancelled before or while the step ran."""

    status: Literal["cancelled"] = "cancelled"
    code: str = "run.cancelled"


class Waiting(_Outcome):
    """A ``wait`` step that is over at ``until_at`` (RFC 3339, UTC). Asking again after that time gives Succeeded.

    ``left_s`` is how long that is from now, in seconds, by the clock of who answers: the one who waits may have another, or the
    clock may have been set. None in answers from before there was such a field.
    """

    status: Literal["waiting"] = "waiting"
    until_at: str
    left_s: LeftS = None


class AwaitingApproval(_Outcome):
    """The step waits for a person's answer until ``expires_at`` (RFC 3339, UTC). The attempt is not used up: asking again after
    the answer, or after that time, gives another outcome. ``left_s`` as in ``Waiting``."""

    status: Literal["awaiting_approval"] = "awaiting_approval"
    approval_id: str
    expires_at: str
    left_s: LeftS = None


class Dispatched(_Outcome):
    """A worker has the step. It ends with the external event ``event``, and by ``look_by`` (RFC 3339, UTC) at the latest. The
    attempt is not used up: asking again after either gives another outcome. ``left_s`` as in ``Waiting``."""

    status: Literal["dispatched"] = "dispatched"
    event: str
    look_by: str
    left_s: LeftS = None


class Suspended(_Outcome):
    """The run is suspended, for the ``number``-th time: nothing was done. The attempt is not used up: asking again once that
    suspension is over gives another outcome."""

    status: Literal["suspended"] = "suspended"
    number: int = Field(ge=1)


class Expanded(_Outcome):
    """A ``for_each`` step with this many items, ready to be run item by item."""

    status: Literal["expanded"] = "expanded"
    item_count: int = Field(ge=0)


StepOutcome = Annotated[
    Succeeded | Failed | Denied | Skipped | Cancelled | Waiting | AwaitingApproval | Dispatched | Suspended | Expanded,
    Field(discriminator="status"),
]
OUTCOME: TypeAdapter[StepOutcome] = TypeAdapter(StepOutcome)
"""Parses an activity's JSON into the outcome it stands for."""
