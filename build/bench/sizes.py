"""What a visitor downloads, compressed as the relay serves it."""

from __future__ import annotations

import json
from pathlib import Path

from build.bench.row import Row

__all__ = ["size_rows"]

_MEGABYTE, _KIBIBYTE = 1e6, 1024


def size_rows(cdn: Path) -> list[Row]:
    """From the table of brotli sizes that the build leaves beside the files."""
    sizes = json.loads((cdn / "sizes.json").read_text())
    quality = f"brotli, {sizes['quality']} quality"
    return [
        Row(
            what="tag with consent",
            value=sizes["brotli"]["sovereign-ai.js"] / _KIBIBYTE,
            unit="KiB",
            budget=6,
            note=quality,
        ),
        Row(
            what="map's page",
            value=sum(sizes["brotli"][f"map.{kind}"] for kind in ("html", "css", "js")) / _KIBIBYTE,
            unit="KiB",
            budget=40,
            note=f"{quality}; all of it, the chart library included",
        ),
        Row(
            what="runtime",
            value=sizes["visitors"]["jspi"] / _MEGABYTE,
            unit="MB",
            budget=7,
            note=f"{quality}; {sizes['visitors']['asyncify'] / _MEGABYTE:.2f} MB in browsers"
            " without JSPI",
        ),
    ]
