"""Embedded Functions host: runs an unmodified Azure Functions Python app on one machine.

It speaks the protocols the Azure host speaks; it deliberately knows nothing about the app it hosts.
"""
