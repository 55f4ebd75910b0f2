"""What `make wheel` adds to the Python packages: browser files, the default model, the builder.

A hook of Hatchling. In the wheel `build.shards` is called `kwaainet_shards`, since the name
`build` belongs to another package on PyPI; the imports of it are renamed in the wheel's copies.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["WheelHook"]

_SHARDS: Final = "kwaainet_shards"
_IMPORT: Final = re.compile(r"^(\s*(?:from|import)\s+)build\.shards\b", re.MULTILINE)
_RENAMED: Final = ("build/shards", "relay_server")
_MODELS: Final = ("kwaai-docs",)


class WheelHook(BuildHookInterface[Any]):
    """Raises RuntimeError when what ships has not been built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        included: dict[str, str] = build_data["force_include"]
        for path in _browser_files(root / "dist"):
            included[str(path)] = f"relay_server/cdn/{path.relative_to(root / 'dist/cdn')}"
        for model in _MODELS:
            folder = root / "dist/models" / model
            if not (folder / "manifest.json").is_file():
                raise RuntimeError(f"{folder} has not been built; run `make wheel`")
            included[str(folder)] = f"relay_server/models/{model}"
        renamed = _renamed(root, root / "dist/wheel")
        included.update(renamed)
        # Hatchling would take the originals too, and refuse the second file of one name.
        self.build_config.target_config["exclude"] = [f"/{place}" for place in renamed.values()]
        included[str(_notices())] = "relay_server/licenses/ONNX-Runtime-ThirdPartyNotices.txt"


def _browser_files(dist: Path) -> list[Path]:
    """Those of this build: dist/cdn/runtime may still have former ones. They must be a release
    build's, or of the quality that $KWAAINET_WHEEL_QUALITY puts up with."""
    try:
        sizes = json.loads((dist / "cdn/sizes.json").read_bytes())
        table = json.loads((dist / "cache/runtime-table.json").read_bytes())
    except OSError:
        sizes = {}
    if sizes.get("quality") not in ("release", os.environ.get("KWAAINET_WHEEL_QUALITY")):
        raise RuntimeError("the browser files are not a release build; run `make wheel`")
    current = {entry["file"] for entry in table.values()}
    runtime = [path for path in (dist / "cdn/runtime").iterdir() if _plain(path) in current]
    return sorted([path for path in (dist / "cdn").iterdir() if path.is_file()] + runtime)


def _plain(path: Path) -> str:
    return re.sub(r"\.(br|gz)$", "", path.name)


def _renamed(root: Path, stage: Path) -> dict[str, str]:
    """Copies of the modules that are, or import, `build.shards`: {file: place in the wheel}."""
    shutil.rmtree(stage, ignore_errors=True)
    places = {}
    for folder in _RENAMED:
        for source in sorted((root / folder).rglob("*.py")):
            text = source.read_text()
            place = source.relative_to(root).as_posix().replace("build/shards", _SHARDS, 1)
            renamed = _IMPORT.sub(rf"\1{_SHARDS}", text)
            if renamed != text or place.startswith(_SHARDS):
                copy = stage / place
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(renamed)
                places[str(copy)] = place
    return places


def _notices() -> Path:
    """The licences of what is linked into ONNX Runtime, as its own package carries them."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("ThirdPartyNotices.txt")
