"""`python -m build.bench`: measure, print a table, write dist/bench.json."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from rich.console import Console

from build.bench.browser import browser_rows, bundle_bare
from build.bench.conversion import conversion_rows
from build.bench.delivery import fetch_rows, swarm_rows
from build.bench.hops import hop_rows
from build.bench.map import map_rows
from build.bench.native import native_rows
from build.bench.row import Row, as_json, table
from build.bench.sizes import size_rows

ROOT = Path(__file__).parents[2]
MODEL = "kwaai-docs"


async def measure(console: Console, hops: bool) -> list[Row]:
    """Everything in one run on one machine, so that ratios are fair."""
    rows = size_rows(ROOT / "dist/cdn")
    with console.status("A checkpoint becomes shards"):
        rows += await conversion_rows()
    with console.status("Files against curl"):
        rows += await fetch_rows()
    with console.status("Native node against bare ONNX Runtime") as status:
        rows += await native_rows(ROOT / "dist/models", MODEL)
        status.update("A map of ten thousand nodes")
        rows += await map_rows()
        status.update("A tab against bare onnxruntime-web; start and restart")
        with tempfile.TemporaryDirectory() as folder:
            await bundle_bare(Path(folder))
            more, alone_ms = await browser_rows(Path(folder))
        rows += more
        if hops:
            status.update("Two and four tabs, by WebRTC and by the relay")
            rows += await hop_rows(alone_ms)
            status.update("Five tabs fetch a model")
            rows += await swarm_rows()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m build.bench", description=__doc__)
    parser.add_argument("--no-hops", action="store_true", help="leave out the swarms of tabs")
    parser.add_argument("--json", type=Path, default=ROOT / "dist/bench.json", metavar="FILE")
    arguments = parser.parse_args()
    console = Console()
    rows = asyncio.run(measure(console, not arguments.no_hops))
    console.print(table(rows))
    arguments.json.write_text(json.dumps(as_json(rows), indent=2) + "\n")
    console.print(f"[dim]also in {arguments.json}; the relay: make load")


if __name__ == "__main__":
    main()
