"""Recorded histories of real runs, replayed against today's orchestrators: a change that would break running instances fails here."""
