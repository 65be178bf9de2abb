"""A worker: takes steps off the bus, has agents carry them out, and answers. A process of its own, on AKS or on one machine.

``step`` is one step from its command to its answer and knows nothing of the bus; ``receiving`` is the bus side; ``health``
answers probes. It holds no state: whatever happens to it, the assignment in the store says what becomes of the step.
"""
