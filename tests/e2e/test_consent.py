"""Before a visitor says yes nothing of the runtime is fetched and nothing is stored."""

from __future__ import annotations

from urllib.parse import urlsplit

from relay_server.demo.network import DemoNetwork, DemoOptions


async def test_before_a_yes_the_cdn_gives_the_tag_and_nothing_else() -> None:
    async with DemoNetwork(DemoOptions(tabs=1, native=0)) as network:
        visitor = await network.add_visitor()
        asked: list[str] = []
        visitor.page.context.on("request", lambda request: asked.append(request.url))
        await visitor.page.reload()
        yes = visitor.page.get_by_role("button", name="Yes, lend it")
        await yes.wait_for()
        from_cdn = {urlsplit(url).path for url in asked if url.startswith(network.cdn)}
        assert from_cdn == {"/sovereign-ai.js"}
        assert network.relay.hub.counters.entered == 0
        stored = await visitor.page.evaluate(
            """async () => [localStorage.length, (await caches.keys()).length,
                (await indexedDB.databases()).length,
                (await navigator.serviceWorker.getRegistrations()).length,
                document.cookie.length]"""
        )
        assert stored == [0, 0, 0, 0, 0]
        assert len(visitor.page.frames) == 1


async def test_a_no_is_remembered_and_nothing_runs() -> None:
    async with DemoNetwork(DemoOptions(tabs=1, native=0)) as network:
        visitor = await network.add_visitor()
        await visitor.page.get_by_role("button", name="No thanks").click()
        await visitor.page.reload()
        await visitor.page.wait_for_function("() => window.KwaaiNet !== undefined")
        assert await visitor.page.get_by_role("button", name="Yes, lend it").count() == 0
        assert len(visitor.page.frames) == 1
        assert network.relay.hub.counters.entered == 0
