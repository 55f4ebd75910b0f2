"""A manifest is believed only when every number in it holds."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import ManifestError
from pyodide_node.model.manifest import (
    MAX_MANIFEST_BYTES,
    CopyStep,
    DequantiseStep,
    decode_manifest,
    encode_manifest,
)

BLOCKS = 3
LAYER, HEAD, ROPE = 1000, 2000, 4096
EXPAND: dict[str, Any] = {
    "layer": [
        {"kind": "copy", "source": 0, "target": 0, "length": 128},
        {
            "kind": "q4",
            "source": 128,
            "scales": 640,
            "k": 32,
            "n": 32,
            "target": 128,
            "length": 4096,
        },
    ],
    "head": [{"kind": "copy", "source": 64, "target": 0, "length": 1936}],
}


def blob(name: str, size: int = 500) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(name.encode()).hexdigest(), "bytes": size}


def valid() -> dict[str, Any]:
    """A manifest of three tiny blocks, as plain JSON."""

    def variant(name: str) -> dict[str, Any]:
        spans = {str(n): blob(f"{name} span {n}") for n in range(1, BLOCKS + 1)}
        graphs = {"head": blob(f"{name} head"), "spans": spans}
        return graphs | ({"expand": copy.deepcopy(EXPAND)} if name == "wasm-expanded" else {})

    return {
        "format": "kwaainet-manifest/2",
        "name": "tiny",
        "architecture": "llama",
        "license": "mit",
        "blocks": BLOCKS,
        "hidden_size": 32,
        "kv_heads": 2,
        "head_dim": 16,
        "vocab_size": 300,
        "context_length": 64,
        "bos_id": 0,
        "eos_ids": [1],
        "bits": 4,
        "ends_bits": 4,
        "block_size": 32,
        "tokenizer": blob("tokenizer"),
        "rope": blob("rope", ROPE),
        "embed": blob("embed"),
        "head": blob("head", HEAD),
        "layers": [blob(f"layer {n}", LAYER) for n in range(BLOCKS)],
        "graphs": {
            "embed": blob("embed graph"),
            "whole": blob("whole graph"),
            "variants": {name: variant(name) for name in ("gpu-fp32", "wasm-expanded")},
        },
        "reference": {"prompt": "Hello", "prompt_ids": [0, 7], "ids": list(range(32))},
    }


def encoded(manifest: object) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def changed(path: str, value: object) -> bytes:
    """The valid manifest with the value at a dotted path replaced, or removed if `...`."""
    manifest = valid()
    *parents, last = path.split(".")
    at: Any = manifest
    for key in parents:
        at = at[int(key) if isinstance(at, list) else key]
    key = int(last) if isinstance(at, list) else last
    if value is ...:
        del at[key]
    else:
        at[key] = value
    return encoded(manifest)


def test_valid_manifest_survives_the_round_trip() -> None:
    data = encoded(valid())
    manifest = decode_manifest(data)
    assert encode_manifest(manifest) == data
    assert manifest.model_id == hashlib.sha256(data).hexdigest()


def test_names_what_a_span_needs() -> None:
    manifest = decode_manifest(encoded(valid()))
    assert manifest.graph("gpu-fp32", 2).sha256 == blob("gpu-fp32 span 2")["sha256"]
    assert manifest.graph("wasm-expanded", "head").sha256 == blob("wasm-expanded head")["sha256"]
    assert manifest.graph("wasm-expanded", "embed") == manifest.graphs.embed
    assert manifest.span_blobs(1, 3) == {
        "rope.bin": manifest.rope,
        "layer0.bin": manifest.layers[1],
        "layer1.bin": manifest.layers[2],
    }
    assert len(manifest.blobs()) == 4 + BLOCKS + 2 + 2 * (1 + BLOCKS)


def test_adds_up_memory() -> None:
    manifest = decode_manifest(encoded(valid()))
    # float16 scales, 2 bytes in 18, become float32 ones.
    assert manifest.span_bytes(0, 2, "gpu-fp32") == 2 * (LAYER + 112) + ROPE
    assert manifest.span_bytes(0, 2, "wasm-expanded") == 2 * (128 + 4096) + ROPE
    assert manifest.head_bytes("gpu-fp32") == HEAD + 223
    assert manifest.head_bytes("wasm-expanded") == 1936
    assert manifest.kv_bytes(10, 3, "gpu-fp32") == 2 * 4 * 2 * 16 * 10 * 3
    assert manifest.kv_bytes(10, 3, "gpu-fp16") == 2 * 2 * 2 * 16 * 10 * 3
    assert manifest.hidden_bytes(positions=5) == 4 * 32 * 5


@pytest.mark.parametrize("span", [(-1, 2), (0, 4), (2, 2), (3, 1)])
def test_refuses_spans_it_does_not_have(span: tuple[int, int]) -> None:
    manifest = decode_manifest(encoded(valid()))
    assert not manifest.has_span(*span)
    with pytest.raises(ValueError, match="no span"):
        manifest.span_blobs(*span)


def test_tells_expansion_steps_apart() -> None:
    first, second = decode_manifest(encoded(valid())).graphs.variants["wasm-expanded"].expand.layer  # type: ignore[union-attr]
    assert isinstance(first, CopyStep)
    assert isinstance(second, DequantiseStep)


WIDE = "graphs.variants.wasm-expanded.expand"
WRONG = [
    ("format", "kwaainet-manifest/1"),
    ("architecture", "gpt2"),
    ("name", ""),
    ("name", "x" * 101),
    ("license", ...),
    ("blocks", 0),
    ("blocks", -3),
    ("blocks", 2),
    ("blocks", 4),
    ("blocks", "3"),
    ("blocks", 3.5),
    ("blocks", True),
    ("blocks", 10**30),
    ("hidden_size", 33),
    ("hidden_size", 1 << 40),
    ("kv_heads", 0),
    ("head_dim", 12),
    ("vocab_size", 31),
    ("vocab_size", -1),
    ("context_length", 20),
    ("context_length", 0),
    ("bos_id", 300),
    ("bos_id", -1),
    ("eos_ids", [300]),
    ("eos_ids", None),
    ("bits", 5),
    ("ends_bits", ...),
    ("block_size", 64),
    ("tokenizer", None),
    ("tokenizer.sha256", "0" * 63),
    ("tokenizer.sha256", "0" * 64 + "\n"),
    ("tokenizer.sha256", "G" * 64),
    ("tokenizer.sha256", "../" + "0" * 61),
    ("tokenizer.bytes", 0),
    ("tokenizer.bytes", -1),
    ("tokenizer.bytes", 1 << 32),
    ("tokenizer.extra", 1),
    ("extra", 1),
    ("rope.bytes", 1 << 20),
    ("layers", []),
    ("layers.1", ...),
    ("layers.1.bytes", LAYER + 1),
    ("graphs.whole.bytes", 1 << 30),
    ("graphs.variants.gpu-fp32", ...),
    ("graphs.variants.gpu-fp16", {}),
    (f"{WIDE}", ...),
    ("graphs.variants.gpu-fp32.expand", EXPAND),
    ("graphs.variants.gpu-fp32.head.bytes", 1 << 30),
    ("graphs.variants.gpu-fp32.spans.2", ...),
    ("graphs.variants.gpu-fp32.spans.4", blob("more")),
    ("graphs.variants.gpu-fp32.spans.02", blob("more")),
    (f"{WIDE}.layer", []),
    (f"{WIDE}.layer.0.kind", "zip"),
    (f"{WIDE}.layer.0.source", -1),
    (f"{WIDE}.layer.0.source", 900),
    (f"{WIDE}.layer.0.length", 132),
    (f"{WIDE}.layer.1.target", 130),
    (f"{WIDE}.layer.1.target", 1 << 30),
    (f"{WIDE}.layer.1.length", 4092),
    (f"{WIDE}.layer.1.k", 31),
    (f"{WIDE}.layer.1.n", 1 << 30),
    (f"{WIDE}.layer.1.source", 600),
    (f"{WIDE}.layer.1.scales", 999),
    (f"{WIDE}.layer.1.scales", 641),
    ("reference.prompt", ""),
    ("reference.prompt_ids", []),
    ("reference.prompt_ids", [300]),
    ("reference.ids", []),
    ("reference.ids", list(range(33))),
    ("layers", [blob(f"layer {n}", 1 << 21) for n in range(BLOCKS)]),
    ("layers.0.dag", "0" * 64),
    ("chat", {"template": "", "special_tokens": {}}),
    ("generation", {"temperature": -1}),
    ("reference.ids.3", 300),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_refuses(path: str, value: object) -> None:
    with pytest.raises(ManifestError) as caught:
        decode_manifest(changed(path, value))
    assert caught.value.data["reason"]


def test_refuses_a_small_file_that_would_expand_without_end() -> None:
    """Sixty steps may read the same bytes; what they write is bounded by what was downloaded."""
    manifest = valid()
    expand = manifest["graphs"]["variants"]["wasm-expanded"]["expand"]
    step = expand["layer"][1]
    steps = [{**step, "target": 4096 * n} for n in range(60)]
    expand["layer"] = steps
    with pytest.raises(ManifestError, match="would expand"):
        decode_manifest(encoded(manifest))


BYTES = {"kind": "q8", "source": 0, "scales": 1024, "k": 32, "n": 32, "target": 0, "length": 4096}
HALVES = {"kind": "f16", "source": 4, "target": 0, "length": 1200}


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (BYTES, {"source": 977}),
        (BYTES, {"length": 4092}),
        (BYTES, {"k": 16, "n": 64}),
        (BYTES, {"scales": 1937}),
        (BYTES, {"scales": 1938}),
        (HALVES, {"source": 5}),
        (HALVES, {"length": 1202}),
        (HALVES, {"source": 1402}),
    ],
)
def test_holds_every_kind_of_step_within_the_file(
    step: dict[str, Any], change: dict[str, Any]
) -> None:
    head = f"{WIDE}.head"
    decode_manifest(changed(head, [step]))
    with pytest.raises(ManifestError, match="expansion step 0 of the head"):
        decode_manifest(changed(head, [step | change]))


@pytest.mark.parametrize("step", [BYTES, HALVES])
def test_no_kind_of_step_expands_without_end(step: dict[str, Any]) -> None:
    steps = [{**step, "target": 4096 * n} for n in range(60)]
    with pytest.raises(ManifestError, match="would expand"):
        decode_manifest(changed(f"{WIDE}.head", steps))


def test_refuses_what_is_too_long_before_parsing_it() -> None:
    with pytest.raises(ManifestError, match="more than"):
        decode_manifest(b"[" * (MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(valid()).encode(),
        encoded(valid()) + b"\n",
        encoded(valid()).replace(b'"bits":4', b'"bits":4,"bits":4'),
    ],
    ids=["empty", "null", "list", "bare", "not utf-8", "deep", "spaces", "newline", "twice"],
)
def test_refuses_other_bytes(data: bytes) -> None:
    with pytest.raises(ManifestError):
        decode_manifest(data)


@given(st.integers(0, len(encoded(valid())) - 1))
def test_refuses_every_truncation(length: int) -> None:
    with pytest.raises(ManifestError):
        decode_manifest(encoded(valid())[:length])


@given(st.binary(max_size=300))
def test_refuses_noise(data: bytes) -> None:
    with pytest.raises(ManifestError):
        decode_manifest(data)


def _paths(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [at] if at else []
    if isinstance(value, dict):
        found += [p for key in value for p in _paths(value[key], (*at, key))]
    elif isinstance(value, list):
        found += [p for index, item in enumerate(value) for p in _paths(item, (*at, index))]
    return found


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(-9, 9) | st.text("ab/."),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(_paths(valid())), _json)
def test_any_one_change_is_refused_or_is_another_sound_manifest(
    path: tuple[str | int, ...], value: object
) -> None:
    manifest = copy.deepcopy(valid())
    at: Any = manifest
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    data = encoded(manifest)
    try:
        decoded = decode_manifest(data)
    except ManifestError:
        return
    assert encode_manifest(decoded) == data
    assert decoded.span_bytes(0, decoded.blocks, "wasm-expanded") < 2**33
    assert msgspec.to_builtins(decoded.layers) == manifest["layers"]
