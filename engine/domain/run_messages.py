"""Names of the queue and the topic that join the engine with other systems."""

from __future__ import annotations

RUN_REQUESTS_QUEUE = "run-requests"
"""Signed requests of other systems, each to become a run. Read by the Functions app."""
RUN_EVENTS_TOPIC = "run-events"
"""What became of runs, for other systems. With sessions: one for each run, in order."""
MAX_REASON_CHARS = 4_096
"""Longest reason, and longest description, of a dead letter."""
