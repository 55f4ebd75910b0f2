"""One visitor: a tab that says yes, becomes a node, and can ask."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyodide_node.errors import KwaaiNetError, LocalError

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

__all__ = ["Visitor"]

_READY = """async () => {
  const state = await new Promise((resolve) => {
    const check = (status) => status.state === 'ready' && resolve({ status });
    KwaaiNet.on('status', check);
    KwaaiNet.on('failed', (error) => resolve({ error }));
    KwaaiNet.ready.then(
      () => KwaaiNet.status().then(check),
      (error) => resolve({ error: { code: error.code, message: error.message } }));
  });
  return state;
}"""

_ASK = """async (request) => {
  try {
    let last;
    for await (const chunk of await KwaaiNet.completions.create({ ...request, stream: true })) {
      const text = chunk.choices[0]?.text ?? '';
      if (text) await demoText(text);
      last = chunk.kwaainet ?? last;
    }
    return { answer: last };
  } catch (error) {
    return { error: { code: error.code ?? error.name, message: error.message } };
  }
}"""


class Visitor:
    """A page of the example site in a profile of its own."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.log: list[str] = []
        self._told: Callable[[str], None] = lambda text: None
        self.cold_start_ms = 0.0

    @classmethod
    async def open(cls, context: BrowserContext, url: str) -> Visitor:
        """Load the page; nothing is agreed to yet."""
        visitor = cls(context.pages[0] if context.pages else await context.new_page())
        visitor.page.on("console", lambda message: visitor.log.append(message.text))
        visitor.page.on("pageerror", lambda error: visitor.log.append(str(error)))
        await visitor.page.expose_function("demoText", lambda text: visitor._told(text))
        await visitor.page.goto(url)
        return visitor

    async def agree(self, timeout: float = 120.0) -> dict[str, Any]:
        """Click yes and wait until the node serves; its status. Raises LocalError."""
        begun = time.monotonic()
        await self.page.get_by_role("button", name="Yes, lend it").click()
        self.page.set_default_timeout(timeout * 1000)
        found = await self.page.evaluate(_READY)
        self.cold_start_ms = (time.monotonic() - begun) * 1000
        if "error" in found:
            raise self._failed(found["error"])
        status: dict[str, Any] = found["status"]
        return status

    async def reload(self, timeout: float = 120.0) -> dict[str, Any]:
        """Load the page again, where a yes was said before; the status once the node serves."""
        self.page.set_default_timeout(timeout * 1000)
        await self.page.reload()
        found = await self.page.evaluate(_READY)
        if "error" in found:
            raise self._failed(found["error"])
        status: dict[str, Any] = found["status"]
        return status

    async def ask(self, told: Callable[[str], None], **request: Any) -> dict[str, Any]:
        """Ask through the page's public API; `told` gets the text as it streams."""
        streamed: list[str] = []

        def take(text: str) -> None:
            streamed.append(text)
            told(text)

        self._told = take
        found = await self.page.evaluate(_ASK, request)
        if "error" in found:
            raise self._failed(found["error"])
        return {**found["answer"], "text": "".join(streamed)}

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.page.evaluate("() => KwaaiNet.status()")
        return found

    def _failed(self, error: dict[str, str]) -> KwaaiNetError:
        log = "".join(f"\n  {line}" for line in self.log[-5:])
        return LocalError(f"the page says: {error['message']}{log}", reason=error["code"])
