"""A page that does what a frame does: boots workers and talks to them by ports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.runtime.server import Site

__all__ = ["Frame"]

DRIVER = (Path(__file__).parent / "driver.js").read_text()
LOAD_DRIVER = f"""() => {{
    const script = document.createElement('script');
    script.textContent = {json.dumps(DRIVER)};
    document.head.append(script);
}}"""


class Frame:
    """`boot` opens a port and returns its number, by which the other methods know it."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        page.evaluate(LOAD_DRIVER)

    def boot(self, hosting: str, **options: Any) -> int:
        """Options: `attributes` of the tag, `version`, `script`."""
        options = {"hosting": hosting, "cdn": self.site.origin, **options}
        return int(self.page.evaluate("(options) => bootWorker(options)", options))

    def started(self, client: int) -> dict[str, Any]:
        """The notice that the node serves, or that it failed."""
        return dict(self.page.evaluate("(client) => started(client)", client))

    def ask(self, client: int, number: int, method: str, params: Any = None) -> dict[str, Any]:
        """The last Reply to a Call."""
        return dict(self.page.evaluate("(a) => ask(...a)", [client, number, method, params]))

    def heartbeat(self, client: int) -> dict[str, Any]:
        return dict(self.page.evaluate("(client) => heartbeat(client)", client))

    def said(self, client: int) -> list[dict[str, Any]]:
        """All that the worker said to this port so far."""
        return list(self.page.evaluate("(client) => clients[client].said", client))
