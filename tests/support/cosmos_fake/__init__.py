"""A small Azure Cosmos DB on a loopback port: a second model of what our adapters rely on, from the documented REST protocol.

It lives with the tests and not in local_host: it keeps everything in memory, and the store of one machine is SQLite. What it does
not model it refuses (501 or 400) instead of guessing. Only simulated: request units, throttling and physical partitions (their
number is given, they never split). Not modelled: consistency levels weaker than strong, geo replication, indexing.
"""

from tests.support.cosmos_fake.faults import Fault, Faults
from tests.support.cosmos_fake.model import Account, cut_within
from tests.support.cosmos_fake.server import CosmosFake

__all__ = ["Account", "CosmosFake", "Fault", "Faults", "cut_within"]
