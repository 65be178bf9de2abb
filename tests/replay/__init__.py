"""Recorded histories of real runs against today's orchestrators: a change that would break running instances fails here."""
