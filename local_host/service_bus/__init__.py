"""Service Bus on one machine: AMQP 1.0 over TCP in front of the embedded host's queue broker, for the real SDK.

A local stand-in, not a broker for production: loopback only, one namespace, one shared key.
"""
