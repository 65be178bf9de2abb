"""The endpoints that the sample agents serve, for whoever has to know them before the process says so. Imports nothing."""

from __future__ import annotations

ENDPOINTS = ("analytics", "mmm", "rag", "rates", "lakehouse", "insights", "crm", "outbox")
