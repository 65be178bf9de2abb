"""Units of effect: the activities that orchestrators schedule by name.

Each is a plain async function over ``Deps`` and a small JSON object; ``build`` registers them. Inputs and results cross
durable history, so they hold ids, codes and counts only.
"""
