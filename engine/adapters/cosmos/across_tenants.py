"""Reads over all tenants, for recovery alone. Nothing else may query without a tenant, and no route reaches what uses this.

Each physical partition is asked by itself, so that no query plan is needed and the order of each is its own; the answers are then
brought into one order.
"""

from __future__ import annotations

from typing import Any

from engine.adapters.cosmos.connection import CosmosConnection, ResponseHook
from engine.adapters.cosmos.definitions import ContainerDefinition
from engine.adapters.cosmos.repository import PAGE, Document, Find, in_order, query_of, readable


async def find_across_tenants(
    connection: CosmosConnection, definition: ContainerDefinition, find: Find
) -> list[Document]:
    """Documents of any tenant, in the order asked for, at most ``find.limit``."""
    text, parameters = query_of(find, definition)

    async def work(container: Any, charge: ResponseHook) -> list[Document]:
        found: list[Document] = []
        async for feed_range in container.read_feed_ranges():
            pages = container.query_items(
                text,
                parameters=parameters,
                feed_range=feed_range,
                max_item_count=min(find.limit, PAGE),
                response_hook=charge,
            )
            found += [readable(document) async for document in pages]
        return found

    return in_order(await connection.call(definition, "query_all", work), find)
