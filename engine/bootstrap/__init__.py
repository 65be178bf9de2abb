"""The composition root: reads the environment, builds clients lazily, hands out ``Deps``. Nothing else does either."""

from engine.bootstrap.container import get_deps
from engine.bootstrap.settings import Settings, bus_results_queue, load_settings, streaming_enabled

__all__ = ["Settings", "bus_results_queue", "get_deps", "load_settings", "streaming_enabled"]
