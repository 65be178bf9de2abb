"""What Redis is used for, where there is one: waking readers of other processes. Nothing is kept in it."""

from engine.adapters.redis.wakeups import RedisWakeups

__all__ = ["RedisWakeups"]
