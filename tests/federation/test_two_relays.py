"""A tab on one relay and a node on the other work together, and go on when one relay dies."""

from __future__ import annotations

from typing import Any

import pytest

from pyodide_node.core import KwaaiNetCore
from tests.federation.conftest import World, ask, eventually


async def home(core: KwaaiNetCore) -> str:
    relay: dict[str, Any] = (await core.status())["relay"]
    return str(relay["url"]) if relay["connected"] else ""


@pytest.mark.slow
@pytest.mark.parametrize("path", ["relay", "auto"])
async def test_an_answer_goes_on_when_the_askers_relay_is_killed(world: World, path: str) -> None:
    one, two = await world.pair()
    bob = await world.node("bob", two, max_blocks=4, path=path)
    ada = await world.node("ada", one, max_blocks=4, path=path)
    await eventually(lambda: one.knows(1, records=2))
    await eventually(lambda: two.knows(1, records=2))
    whole = await ask(ada, 40)
    assert len(whole.ids) == 40

    async def kill(seen: int) -> None:
        if seen >= 10 and one.process.returncode is None:
            await one.kill()

    cut = await ask(ada, 40, kill)
    assert one.process.returncode is not None
    assert cut.ids == whole.ids
    assert cut.reroutes <= 1

    dialled = two.url.replace("http", "ws") + "/mesh"

    async def both_moved() -> bool:
        return await home(ada) == dialled == await home(bob)

    await eventually(both_moved)
    assert (await ask(ada, 40)).ids == whole.ids
