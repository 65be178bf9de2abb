"""The bus: Azure Service Bus through its own SDK, which is loaded by the first use."""

from engine.adapters.service_bus.connection import BusConnection, BusMessage
from engine.adapters.service_bus.queues import ServiceBusResults, ServiceBusStepQueue

__all__ = ["BusConnection", "BusMessage", "ServiceBusResults", "ServiceBusStepQueue"]
