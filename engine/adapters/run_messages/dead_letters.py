"""Making a dead letter of a message that the Functions host has received and holds the lock of, and putting one off.

The trigger of the Python worker gives a function the message and no way to settle it: the host completes it when the function
returns and gives it back when the function raises. So the lock that the host holds is used from here, over the management link,
as the SDK itself does for a message whose own link is gone. The host then finds the lock gone and logs that (ADR 0010).
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.domain.errors import LivoaError
from engine.domain.run_messages import POSTPONED, RUN_REQUESTS_QUEUE

TIMEOUT_S = 20.0
_LATER = ".later-"
_MAX_ID = 110
"""Of the 128 characters that an id may have."""

OpenClient = Callable[[], Any]
"""Gives a new client of the SDK (``azure.servicebus.aio.ServiceBusClient``)."""


class ServiceBusRunRequests:
    """Implements ``HeldMessages``. A link of its own for each message: dead letters are rare, and opening is simple."""

    def __init__(
        self, client: OpenClient, queue: str = RUN_REQUESTS_QUEUE, *, content_type: str = "application/jose"
    ) -> None:
        self._client, self._queue, self._content_type = client, queue, content_type

    async def postpone(self, body: bytes, message_id: str, *, times: int, delay_s: float) -> None:
        """See ``HeldMessages``. The id gets a suffix, because duplicate detection would drop the message under its own."""
        from azure.core.exceptions import AzureError
        from azure.servicebus import ServiceBusMessage

        first = message_id.split(_LATER)[0]
        if len(first) > _MAX_ID:
            first = hashlib.sha256(first.encode()).hexdigest()
        later = ServiceBusMessage(
            body,
            message_id=f"{first}{_LATER}{times}",
            content_type=self._content_type,
            application_properties={POSTPONED: times},
        )
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._client() as client,
                client.get_queue_sender(self._queue) as sender,
            ):
                await sender.schedule_messages(later, datetime.now(UTC) + timedelta(seconds=delay_s))
        except (AzureError, OSError, TimeoutError, ValueError) as err:
            raise LivoaError(
                "bus.unavailable", f"A message could not be put off: {type(err).__name__}.", status=503
            ) from None

    async def dead_letter(self, lock_token: str, reason: str, description: str) -> None:
        """See ``HeldMessages``."""
        from azure.core.exceptions import AzureError

        try:
            # Without prefetching nothing is received here: the link is opened to name the queue, not to read from it.
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._client() as client,
                client.get_queue_receiver(self._queue, prefetch_count=0) as receiver,
            ):
                held = _held(uuid.UUID(lock_token), receiver)
                await receiver.dead_letter_message(held, reason=reason, error_description=description)
        except (AzureError, OSError, TimeoutError, ValueError) as err:
            # Their messages name addresses; the type is enough to go by.
            raise LivoaError(
                "bus.unavailable", f"A message could not be made a dead letter: {type(err).__name__}.", status=503
            ) from None


def _held(lock_token: uuid.UUID, receiver: Any) -> Any:
    """The message as far as settling needs it. Marked as deferred, because those are settled by their token alone."""
    from azure.servicebus import ServiceBusReceivedMessage
    from azure.servicebus._pyamqp.message import Message

    return ServiceBusReceivedMessage(
        message=Message(), receiver=receiver, lock_token=lock_token, is_deferred_message=True
    )
