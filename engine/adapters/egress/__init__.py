"""Outgoing HTTP: every connection of the engine is made through the guard in here."""

from engine.adapters.egress.client import Fetched, GuardedClient
from engine.adapters.egress.connector import guarded_connector

__all__ = ["Fetched", "GuardedClient", "guarded_connector"]
