"""Signing keys over HTTPS."""
