"""Planning and composing: from a request to a proposal, from step outputs to one answer.

What is here proposes only; engine.plan and policy decide. Today it holds the mode that needs no model (``degraded``).
"""
