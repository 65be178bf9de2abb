"""Planning and composing: from a request to a proposal, from step outputs to one answer.

What is here proposes only; engine.plan and policy decide. ``planning`` is the one path to a plan, ``planner`` the planner with
models, ``graph`` its state machine (``nodes``, ``edges``), ``lowering`` what a model may emit, ``seen`` what it is shown,
``model_calls`` the one door to models, ``degraded`` the mode that needs none.
"""
