"""The command line of the shard builder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from build.shards.builder import build
from build.shards.source import CheckpointError, open_source


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m build.shards",
        description="Turn a checkpoint (a Llama, Mistral, Qwen2 or Qwen3) into content-addressed "
        "shards, graphs and a manifest.",
        epilog="The same checkpoint gives the same bytes; a second run finds nothing to do, or "
        "goes on where the first was cut off.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_DIR")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="gets manifest.json and blobs/")
    parser.add_argument("--name", help="the model's name (default: the checkpoint's folder name)")
    parser.add_argument("--license", help="SPDX name (default: from the model card)")
    parser.add_argument(
        "--context", type=int, metavar="N", help="serve at most N positions (default: all)"
    )
    parser.add_argument(
        "--bits", type=int, choices=(4, 8, 16, 32), help="of a weight (default: the source's)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    )  # fmt: skip
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("reading the checkpoint")
            built = build(
                open_source(options.checkpoint, options.context),
                options.out,
                options.name or options.checkpoint.resolve().name,
                options.license,
                lambda what, done, of: bar.update(task, description=what, completed=done, total=of),
                options.bits,
            )
    except CheckpointError as error:
        console.print(f"[red]cannot build shards:[/] {error}")
        return 1
    manifest = built.manifest
    size = sum(blob.bytes for blob in manifest.blobs().values())
    verb = "built" if built.fresh else "already built"
    console.print(
        f"{verb} {manifest.name}: {manifest.blocks} blocks, {size / 1e6:.1f} MB in "
        f"{len(manifest.blobs())} blobs, model {manifest.model_id}",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
