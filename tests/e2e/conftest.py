"""One stack for most tests. Tests that kill or need other settings start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.client import Client
from tests.e2e.stack import Stack, host_without_streaming, up


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """``./livoa up``, shared."""
    with up(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def whole(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A second host, whose requests and responses do not stream."""
    with host_without_streaming(tmp_path_factory.mktemp("whole"), beside=stack) as running:
        yield running


@pytest.fixture
def contoso(stack: Stack) -> Client:
    """Ana of contoso, who may submit and read."""
    return stack.client("contoso")


@pytest.fixture
def fabrikam(stack: Stack) -> Client:
    """Bo of fabrikam."""
    return stack.client("fabrikam", "bo")
