"""A plan has the sizes of what is then built."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind

from build.shards.builder import build
from build.shards.gguf import best_bits
from build.shards.gguf_tokenizer import PATTERNS
from build.shards.plan import plan_checkpoint
from build.shards.source import Bits, CheckpointError, open_source
from tests.build.families import FAMILIES, write_family
from tests.build.gguf_files import write_gguf


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_plan_has_the_sizes_of_what_is_built(tmp_path: Path, name: str, bits: Bits) -> None:
    folder = write_family(tmp_path / "checkpoint", name)
    built = build(open_source(folder), tmp_path / "out", name, bits=bits).manifest
    for file in folder.iterdir():
        if file.name != "config.json":
            file.unlink()
    plan = plan_checkpoint(folder, bits, None)
    for part in ("embed", "head", "rope"):
        assert getattr(plan, part).bytes == getattr(built, part).bytes, part
    assert {blob.bytes for blob in plan.layers} == {blob.bytes for blob in built.layers}
    assert (plan.embed == plan.head) == (built.embed == built.head)
    assert plan.ends_bits == built.ends_bits
    assert set(plan.graphs.variants) == set(built.graphs.variants)
    for variant in built.graphs.variants:
        assert plan.graphs.variants[variant].expand == built.graphs.variants[variant].expand
        assert plan.span_bytes(1, 4, variant) == built.span_bytes(1, 4, variant)
        assert plan.head_bytes(variant) == built.head_bytes(variant)


def test_a_gguf_file_is_planned_from_its_head(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "checkpoint", "qwen3")
    path = write_gguf(folder, tmp_path / "model.gguf", "qwen3", Kind.Q8_0)
    plan = plan_checkpoint(path, None, 100)
    assert (plan.bits, plan.context_length, plan.architecture) == (8, 100, "qwen3")


def test_says_what_cannot_be_planned(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        plan_checkpoint(tmp_path, 4, None)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(CheckpointError, match="neither a folder"):
        plan_checkpoint(tmp_path / "a.txt", 4, None)


def test_the_docs_name_all_that_can_be_read() -> None:
    text = (Path(__file__).parents[2] / "docs" / "MODELS.md").read_text()
    for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F32", "F16", "BF16", "IQ4_NL", "IQ4_XS"):
        assert kind in text
        assert best_bits(Kind[kind]) is not None
    for name, pattern in PATTERNS.items():
        alias = any(other in text and same == pattern for other, same in PATTERNS.items())
        assert name in text or alias, name
    for family in ("Llama", "Mistral", "Qwen2", "Qwen3"):
        assert family in text
