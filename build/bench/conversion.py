"""How fast a checkpoint becomes shards, and in how much memory: one process, a random Llama."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from build.bench.row import Row

__all__ = ["conversion_rows"]

BLOCKS, HIDDEN, INTER, HEADS, KV, VOCAB = 6, 1024, 3584, 16, 4, 16_384
"""110 million weights: 0.22 GB in half precision, as a file of its makers would be."""


async def conversion_rows() -> list[Row]:
    """In a process of its own, whose peak memory nothing else has raised."""
    with tempfile.TemporaryDirectory(prefix="kwaainet-convert-") as folder:
        size = await asyncio.to_thread(write_checkpoint, Path(folder, "checkpoint"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "build.bench.conversion", folder),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        found = json.loads(out)
    what = f"{size / 1e9:.2f} GB of float16 to 4 bits, {BLOCKS} layers"
    return [
        Row(
            what="conversion",
            value=found["seconds"] / (size / 1e9),
            unit="s/GB",
            note=what,
        ),
        Row(
            what="conversion, peak memory over an idle start",
            value=found["peak"] / 1e6,
            unit="MB",
            note=f"{what}; the largest matrix in float32 is {4 * VOCAB * HIDDEN / 1e6:.0f} MB",
        ),
    ]


def write_checkpoint(folder: Path) -> int:
    """Bytes of weights written."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    config = {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "num_hidden_layers": BLOCKS,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": VOCAB,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    vocab = {f"t{index}": index for index in range(VOCAB)}
    tokenizer = {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    def matrix(rows: int, columns: int) -> NDArray[np.float16]:
        values = draw.standard_normal((rows, columns), np.float32)
        half: NDArray[np.float16] = (values / columns**0.5).astype(np.float16)
        return half

    ones = np.ones(HIDDEN, np.float16)
    tensors = {"model.embed_tokens.weight": matrix(VOCAB, HIDDEN), "model.norm.weight": ones}
    for layer in range(BLOCKS):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.input_layernorm.weight": ones.copy(),
            f"{at}.post_attention_layernorm.weight": ones.copy(),
            f"{at}.self_attn.q_proj.weight": matrix(HIDDEN, HIDDEN),
            f"{at}.self_attn.k_proj.weight": matrix(HIDDEN * KV // HEADS, HIDDEN),
            f"{at}.self_attn.v_proj.weight": matrix(HIDDEN * KV // HEADS, HIDDEN),
            f"{at}.self_attn.o_proj.weight": matrix(HIDDEN, HIDDEN),
            f"{at}.mlp.gate_proj.weight": matrix(INTER, HIDDEN),
            f"{at}.mlp.up_proj.weight": matrix(INTER, HIDDEN),
            f"{at}.mlp.down_proj.weight": matrix(HIDDEN, INTER),
        }
    save_file(tensors, folder / "model.safetensors")
    return (folder / "model.safetensors").stat().st_size


def main(folder: Path) -> None:
    from build.shards.builder import build
    from build.shards.source import open_source

    before = peak()
    began = time.perf_counter()
    build(open_source(folder / "checkpoint"), folder / "out", "bench", "mit", bits=4)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak": peak() - before}))


def peak() -> int:
    """Bytes resident at most; what getrusage says has the parent's from before exec in it."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    ]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
