"""What a weights file costs while it is written does not grow with the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_GROWTH = 100
"""MB. As float32, the layer written below is 243 MB and the embedding 524 MB."""

IN_A_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from build.bench.conversion import peak
from build.shards.blobs import Blobs
from build.shards.builder import stream
from build.shards.quantise import quantise
from build.shards.source import Shape
from build.shards.weights import embed_parts, layer_parts

shape = Shape(1, 2048, 8192, 32, 8, 64, 64_000, 4096, 1e-5, 1e4)
draw = np.random.default_rng(0)

class Made:
    def tensor(self, name, *dims):
        return np.ones(dims, np.float32)
    def rows(self, name, first, last):
        wide = 8192 if "down_proj" in name else 2048
        return draw.standard_normal((last - first, wide), np.float32)
    def quantised(self, name, bits, first, last):
        return None

bits, what = int(sys.argv[1]), sys.argv[2]
quantise(np.ones((1024, 1024), np.float32))
parts = embed_parts(shape, bits) if what == "embedding" else layer_parts(shape, 0, bits)
before = peak()
size = Blobs(Path(sys.argv[3])).put(stream(Made(), parts)).bytes
print(size // 1_000_000, (peak() - before) // 1_000_000)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "bits", "megabytes"),
    [("layer", 4, 34), ("layer", 16, 121), ("embedding", 8, 139), ("embedding", 32, 524)],
)
def test_writing_a_file_takes_no_more_than_a_matrix(
    what: str, bits: int, megabytes: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", IN_A_PROCESS, str(bits), what, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    size, growth = map(int, done.stdout.split())
    assert size == megabytes
    assert growth < MOST_GROWTH
