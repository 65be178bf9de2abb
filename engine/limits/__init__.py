"""Limits as pure reducers ``(state, operation, now) -> (state, result)``: budgets, breakers, token buckets, leases of runs.

States are frozen, small and JSON (``to_json``/``from_json``), so that memory, a database row or a durable entity may hold them.
Nothing here reads a clock, waits, or knows who asks.
"""
