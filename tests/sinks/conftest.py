"""The routes out on a real result store, with a log that the test writes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.world import Caller, World, serving


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, catch_up_s=1.0)
    yield world
    world.close()


@pytest.fixture
async def caller(world: World) -> AsyncIterator[Caller]:
    async with serving(world) as caller:
        yield caller
