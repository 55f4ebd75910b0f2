"""Real Chromium profiles: each a visitor of its own."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyodide_node.errors import ConfigError

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Playwright

__all__ = [
    "FLAGS",
    "SOFTWARE_WEBGPU",
    "STORAGE_ALLOWED",
    "STORAGE_DENIED",
    "find_chromium",
    "profile",
]

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

SOFTWARE_WEBGPU = [
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan",
    "--use-webgpu-adapter=swiftshader",
    "--use-vulkan=swiftshader",
    "--use-angle=swiftshader",
]
"""WebGPU on the processor: right, not fast."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

STORAGE_ALLOWED = {"profile": {"cookie_controls_mode": 0, "block_third_party_cookies": False}}
"""What a visitor's Chrome has by default; Debian's build blocks storage in frames of others."""

STORAGE_DENIED = {"profile": {"default_content_setting_values": {"cookies": 2}}}
"""A visitor who has blocked all site data."""


def find_chromium() -> str:
    """CHROMIUM_PATH, or the first Chromium on PATH. Raises ConfigError."""
    named = os.environ.get("CHROMIUM_PATH")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if not found or not Path(found).exists():
        raise ConfigError(
            "Chromium was not found; install it, or set CHROMIUM_PATH", setting="CHROMIUM_PATH"
        )
    return found


@asynccontextmanager
async def profile(
    playwright: Playwright, *flags: str, storage: bool = True
) -> AsyncIterator[BrowserContext]:
    """A fresh Chromium profile in a process of its own; gone afterwards.

    Without `storage` all site data is blocked, as a visitor can choose in the settings.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kwaainet-tab-")))
        preferences = STORAGE_ALLOWED if storage else STORAGE_DENIED
        (folder / "Default").mkdir()
        (folder / "Default" / "Preferences").write_text(json.dumps(preferences))
        context = await playwright.chromium.launch_persistent_context(
            folder,
            executable_path=find_chromium(),
            headless=True,
            args=[*FLAGS, *flags],
            viewport={"width": 1280, "height": 800},
        )
        stack.push_async_callback(context.close)
        yield context
