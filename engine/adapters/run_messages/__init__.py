"""Messages about runs over Azure Service Bus, through its own SDK, which is loaded by the first use."""

from engine.adapters.run_messages.dead_letters import ServiceBusRunRequests
from engine.adapters.run_messages.events import ServiceBusRunEvents

__all__ = ["ServiceBusRunEvents", "ServiceBusRunRequests"]
