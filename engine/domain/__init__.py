"""The words of the project: frozen models, ids, statuses, events, errors and durable names.

Pydantic only. Nothing here performs I/O, reads a clock or knows an SDK; every other package may import it.
"""
