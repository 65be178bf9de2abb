"""The sample domain: a handful of agents for marketing analytics, written on the agent kit.

Small but computed: every figure comes from the data set it is asked about. Not part of the engine, and nothing in the engine
imports it.
"""
