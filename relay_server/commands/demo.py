"""`kwaainet demo`: relay, tabs and native nodes on this machine, and one prompt through them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from pyodide_node.errors import LocalError
from relay_server.demo.network import DemoNetwork, DemoOptions
from relay_server.demo.report import report

__all__ = ["demo"]

PROMPT = "If the file does not exist,"


def demo(
    *,
    headless: bool = False,
    tabs: int = 3,
    native: int = 0,
    prompt: str = PROMPT,
    max_new_tokens: int = 48,
    engine: Literal["auto", "webgpu", "wasm"] = "auto",
    path: Literal["auto", "webrtc", "relay"] = "auto",
    model: str = "",
    models: Annotated[Path | None, Parameter(show_default=False)] = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Run a whole network on this machine: a relay, browser tabs, native nodes.

    With a display your browser opens the chat page and the other tabs run unseen beside it.
    Headless, one prompt is asked through the page's public API, its text printed as it streams
    and compared with what the unsplit model says.

    Parameters
    ----------
    headless
        No window: ask one prompt and end. The default where there is no display.
    tabs
        Chromium profiles, each a visitor of its own; the first asks.
    native
        Native nodes, each a process of its own.
    prompt
        What to ask.
    max_new_tokens
        Tokens of the answer, at most.
    engine
        What tabs compute on. webgpu runs on a software adapter here, right but slow.
    path
        How nodes reach each other.
    model
        Name of a model, as `kwaainet model list` has it. Default: the first.
    models
        Directory of models. Default: where `kwaainet model add` puts them.
    json_file
        Write what was measured to this file.
    """
    if tabs < 1 or native < 0:
        raise LocalError("the demo needs at least one tab")
    options = DemoOptions(
        tabs=tabs, native=native, engine=engine, path=path, model=model, models=models
    )
    if headless or not _has_display():
        asyncio.run(_headless(options, prompt, max_new_tokens, json_file))
    else:
        asyncio.run(_with_display(options))


async def _headless(
    options: DemoOptions, prompt: str, max_new_tokens: int, json_file: Path | None
) -> None:
    console = Console(stderr=True, highlight=False)
    async with DemoNetwork(options) as network:
        with console.status("Starting") as status:
            status.update("Opening the page of the one who asks")
            asker = await network.add_visitor()
            await asker.agree()
            console.print(f"[green]✓[/] the asking tab is a node ({asker.cold_start_ms:.0f} ms)")
            downloaded = network.relay.hub.counters.file_bytes
            await _add_others(network, status, console)
            status.update("Waiting until every block is served")
            await network.covered()
            await _direct(asker, options)
        console.print(f"[bold]{prompt}[/]", end="")
        answer = await asker.ask(_print, prompt=prompt, max_tokens=max_new_tokens, temperature=0)
        print(flush=True)
        result = await report(network, asker, prompt, answer, downloaded)
    _show(console, result)
    if json_file is not None:
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        await asyncio.to_thread(json_file.write_text, text)
    if not result["match"]:
        raise LocalError("the answer is not the unsplit model's; this is a bug")


async def _with_display(options: DemoOptions) -> None:
    console = Console(highlight=False, emoji=False)
    async with DemoNetwork(options) as network:
        with console.status("Starting") as status:
            await _add_others(network, status, console)
        console.print(f"The page: [bold]{network.page_url()}[/]\nStop with Ctrl-C.")
        webbrowser.open(network.page_url())
        await asyncio.Event().wait()


async def _add_others(network: DemoNetwork, status: Any, console: Console) -> None:
    for number in range(network.options.native):
        status.update(f"Starting native node {number + 1}")
        await network.add_native()
    for number in range(1, network.options.tabs):
        status.update(f"Opening tab {number + 1} of {network.options.tabs}")
        visitor = await network.add_visitor()
        await visitor.agree()
        console.print(f"[green]✓[/] tab {number + 1} is a node ({visitor.cold_start_ms:.0f} ms)")


async def _direct(asker: Any, options: DemoOptions) -> None:
    """Give ICE its moment: what follows is then measured on the paths that will be used."""
    if options.path == "relay":
        return
    for _ in range(50):
        peers = (await asker.status())["peers"]
        if all(peer["path"] == "webrtc" for peer in peers):
            return
        await asyncio.sleep(0.1)


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _show(console: Console, result: dict[str, Any]) -> None:
    for hop in result["route"]:
        console.print(
            f"  blocks {hop['first_block']}–{hop['last_block']}  {hop['host']}  {hop['engine']}"
            f"  by {hop['path']}  …{hop['peer'][-8:]}"
        )
    verdict = "[green]equal[/]" if result["match"] else "[red]NOT equal[/]"
    console.print(
        f"{len(result['ids'])} tokens, first after {result['ttft_ms']:.0f} ms, then"
        f" {result['decode_tok_s']:.1f} a second; {verdict} to the unsplit model"
    )


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
