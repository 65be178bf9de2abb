"""Durable half of the embedded host: orchestrations, entities and timers over SQLite.

It reproduces what the Durable Functions extension does around the Python SDK, including the parts that hurt
(sequential walking of the action list, exact event numbering). It deliberately has no opinion about HTTP
triggers, queues or how an activity function is invoked: that arrives through `functions.DurableFunctions`.
"""
