"""What a browser may lack: a GPU, room to store."""

from __future__ import annotations

import pytest

from pyodide_node.budget import MEGABYTE, RUNTIME_STORAGE
from pyodide_node.errors import LocalError
from relay_server.demo.network import DemoNetwork, DemoOptions
from relay_server.demo.report import reference_ids
from relay_server.demo.visitor import Visitor

GREEDY = {"prompt": "If the file does not exist,", "max_tokens": 16, "temperature": 0}


async def test_a_gpu_asked_for_where_there_is_none_is_a_clear_error() -> None:
    async with DemoNetwork(DemoOptions(tabs=1, native=0)) as network:
        visitor = await network.add_visitor()
        url = network.site.page("chat", {"engine": "webgpu"})
        await visitor.page.goto(url)
        with pytest.raises(LocalError, match="offers no GPU"):
            await visitor.agree()


async def test_a_full_disk_costs_storage_and_nothing_else() -> None:
    async with DemoNetwork(DemoOptions(tabs=1, native=0)) as network:
        visitor = await network.add_visitor()
        session = await visitor.page.context.new_cdp_session(visitor.page)
        for origin in (network.cdn, network.site.url):
            await session.send(
                "Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": 100_000}
            )
        status = await visitor.agree()
        assert status["budget"]["storage"]["used"] <= RUNTIME_STORAGE["tab"] / MEGABYTE
        answer = await visitor.ask(lambda text: None, **GREEDY)
        assert answer["ids"] == await reference_ids(network, answer["prompt_ids"], 16)


async def test_attributes_that_do_not_parse_start_nothing_and_break_nothing() -> None:
    async with DemoNetwork(DemoOptions(tabs=1, native=0)) as network:
        visitor: Visitor = await network.add_visitor()
        await visitor.page.goto(network.site.page("chat", {"max-resources": "cpu:900"}))
        await visitor.page.wait_for_function("() => window.KwaaiNet !== undefined")
        assert any("cpu" in line and "did not start" in line for line in visitor.log)
        assert len(visitor.page.frames) == 1
        assert network.relay.hub.counters.entered == 0
