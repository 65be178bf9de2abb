"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# How long one example takes says more about the machine than about the code; each test is bounded as a whole.
settings.register_profile("livoa", deadline=None)
settings.load_profile("livoa")
