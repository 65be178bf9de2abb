"""The engine of Livoa: everything that decides, records and executes, apart from the Functions shells around it."""

VERSION = "0.1.0"
"""Of everything in this repository but the agent kit: `./livoa --version`, `GET /api/health/ready`, telemetry, pyproject.toml."""
