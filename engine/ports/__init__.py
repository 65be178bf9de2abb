"""What the engine needs from outside, as Protocols. Adapters implement them; a contract suite holds each adapter to its port.

Every method that touches tenant data takes the tenant first: there is no way to ask a store without one.
"""
