"""Adapters: one folder per technology, implementing the ports. Only engine.bootstrap and tests import them."""
