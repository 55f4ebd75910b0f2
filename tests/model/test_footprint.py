"""What a model takes: the same arithmetic for a node, a plan and the tests of memory."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyodide_node.budget import MEGABYTE, RUNTIME_MEMORY
from pyodide_node.hosts.base import EngineName, HostKind
from pyodide_node.model.ends import EndsFootprint, choose_ends, least_ends
from pyodide_node.model.footprint import SESSION_POSITIONS, Footprint, best_engine
from pyodide_node.model.manifest import (
    Blob,
    CopyStep,
    DequantiseStep,
    Expansion,
    Graphs,
    Manifest,
    Reference,
    VariantGraphs,
)
from pyodide_node.model.plan import plan

TAB: tuple[EngineName, ...] = ("wasm", "wasm-int4")


def a_blob(size: int, digit: str = "0") -> Blob:
    return Blob(sha256=digit * 64, bytes=size)


def quarter(step: DequantiseStep) -> CopyStep:
    """One byte a weight instead of four."""
    end = (step.target + step.length) // 4
    return CopyStep(source=0, target=end - 64, length=64)


def a_model(
    *, layer: int = 122_716_160, blocks: int = 32, context: int = 4096, vocab: int = 128256
) -> Manifest:
    """Of Llama 8B's sizes, in int4, but for what is given."""
    weights = layer * 16 // 9  # 4 bits each, and 16 more for every 32
    ends = vocab * 4096 * 9 // 16
    step = DequantiseStep(source=0, scales=0, k=4096, n=14336, target=0, length=4 * 4096 * 14336)
    wide = msgspec.structs.replace(step, target=4 * weights - step.length)
    head = DequantiseStep(source=0, scales=0, k=4096, n=vocab, target=0, length=16384 * vocab)
    graphs = {str(count): a_blob(1000) for count in range(1, blocks + 1)}
    return Manifest(
        format="kwaainet-manifest/2",
        name="eight",
        architecture="llama",
        license="mit",
        blocks=blocks,
        hidden_size=4096,
        kv_heads=8,
        head_dim=128,
        vocab_size=vocab,
        context_length=context,
        bos_id=None,
        eos_ids=[],
        bits=4,
        ends_bits=4,
        block_size=32,
        tokenizer=a_blob(1000),
        rope=a_blob(512 * context),
        embed=a_blob(ends, "1"),
        head=a_blob(ends),
        layers=[a_blob(layer)] * blocks,
        graphs=Graphs(
            embed=a_blob(1000),
            whole=a_blob(1000),
            variants={
                "gpu-fp32": VariantGraphs(head=a_blob(1000), spans=graphs),
                "gpu-fp16": VariantGraphs(head=a_blob(1000), spans=graphs),
                "wasm-expanded": VariantGraphs(
                    head=a_blob(1000), spans=graphs, expand=Expansion(layer=[wide], head=[head])
                ),
                "wasm-int8": VariantGraphs(
                    head=a_blob(1000),
                    spans=graphs,
                    expand=Expansion(layer=[quarter(wide)], head=[quarter(head)]),
                ),
            },
        ),
        reference=Reference(prompt="x", prompt_ids=[0], ids=[0]),
    )


def test_a_big_block_is_a_session_of_its_own_and_small_ones_share() -> None:
    big, small = a_model(), a_model(layer=4_000_000, blocks=40)
    assert Footprint(big, "webgpu").pieces(3, 6) == [(3, 4), (4, 5), (5, 6)]
    assert Footprint(small, "webgpu").pieces(0, 40) == [(0, 28), (28, 40)]
    assert Footprint(small, "wasm").pieces(0, 7) == [(0, 4), (4, 7)]


def test_a_long_rotary_table_is_shared_by_more_blocks() -> None:
    """One of 67 MB in every session would cost half as much again as the weights."""
    assert Footprint(a_model(context=131072), "webgpu").pieces(0, 2) == [(0, 1), (1, 2)]
    long = Footprint(a_model(context=1 << 18), "webgpu")
    assert long.pieces(0, 4) == [(0, 2), (2, 4)]


@settings(max_examples=30)
@given(
    st.integers(1, 200_000),
    st.integers(1, 20),
    st.integers(16, 8192),
    st.sampled_from(["webgpu", "wasm", "wasm-int4", "onnxruntime"]),
)
def test_pieces_cover_the_span_and_memory_grows_with_it(
    layer: int, blocks: int, context: int, engine: EngineName
) -> None:
    here = Footprint(a_model(layer=64 * layer, blocks=blocks, context=context), engine)
    pieces = here.pieces(0, blocks)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == blocks
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
    needed = [here.serving(count) for count in range(1, blocks + 1)]
    assert needed == sorted(needed)
    assert here.span(0, blocks) <= here.loading(0, blocks)
    for size in needed:
        for free in (size, size - 1):
            room = here.room(free)
            assert room == sum(one <= free for one in needed)
            assert here.room(free, 3) == min(room, 3)


def test_while_loading_only_one_piece_lies_in_memory_as_files_too() -> None:
    files = 122_716_160 + a_model().rope.bytes
    for engine in ("webgpu", "simulated"):
        here = Footprint(a_model(), engine)
        assert here.loading(0, 8) == 8 * here.span(0, 1) + files


def test_files_that_are_expanded_lie_beside_what_they_become() -> None:
    here, files = Footprint(a_model(), "wasm"), 122_716_160 + a_model().rope.bytes
    assert here.loading(0, 1) > 2 * here.span(0, 1) + files


def test_room_is_kept_for_a_session_and_not_for_a_context_of_any_length() -> None:
    for context, positions in ((100, 100), (131072, SESSION_POSITIONS)):
        assert Footprint(a_model(context=context), "webgpu").session_positions == positions


def test_unpacking_counts_where_it_happens() -> None:
    model = a_model()
    packed, gpu = Footprint(model, "wasm-int4"), Footprint(model, "webgpu")
    assert packed.working("layer") == 4 * 4096 * 14336
    assert packed.working("head") == 1 << 27
    assert packed.serving(20) > gpu.serving(20)
    assert gpu.working("layer") == Footprint(model, "wasm").working("head") == 0


@pytest.mark.parametrize(
    ("engine", "blocks", "tabs"),
    [("webgpu-fp16", 12, 3), ("webgpu", 10, 4), ("wasm-int4", 8, 4), ("wasm-int8", 5, 7)],
)
def test_tabs_of_two_gigabytes_hold_a_model_of_7b(
    engine: EngineName, blocks: int, tabs: int
) -> None:
    """Blocks as large as Llama 8B's, measured in tests/runtime/test_memory.py; 32 of them."""
    model, memory = a_model(vocab=512), 2048 * MEGABYTE
    chosen, here = plan(model, [engine], "tab", memory), Footprint(model, engine)
    assert chosen.blocks == blocks
    assert -(-model.blocks // blocks) == tabs
    assert chosen.ends is not None
    taken = RUNTIME_MEMORY["tab"] + chosen.ends.total
    assert taken + here.serving(blocks) <= memory < taken + here.serving(blocks + 1)


def test_a_tab_takes_the_form_that_serves_most() -> None:
    assert best_engine(a_model(), TAB, 2_500 * MEGABYTE) == "wasm"
    assert best_engine(a_model(), TAB, 1_000 * MEGABYTE) == "wasm-int4"
    small = a_model(layer=4_000_000, blocks=8)
    assert best_engine(small, TAB, 10_000 * MEGABYTE) == "wasm"


@pytest.mark.parametrize(("memory", "ends"), [(16384, "wasm"), (2048, "wasm-int4"), (700, None)])
def test_the_head_is_expanded_only_where_it_fits(memory: int, ends: str | None) -> None:
    """Of 128k tokens in fp32 it takes 2 GB."""
    chosen = plan(a_model(), TAB, "tab", memory * MEGABYTE).ends
    assert (chosen and chosen.engine) == ends


@pytest.mark.parametrize(
    ("kind", "engine", "blocks"),
    [
        ("tab", "webgpu-fp16", 2),
        ("tab", "webgpu", 1),
        ("tab", "wasm-int4", 0),
        ("native", "onnxruntime", 1),
    ],
)
def test_an_asker_of_one_gigabyte_takes_a_vocabulary_of_128k(
    kind: HostKind, engine: EngineName, blocks: int
) -> None:
    chosen = plan(a_model(), [engine], kind, 1024 * MEGABYTE)
    assert chosen.ends == EndsFootprint(a_model(), engine, stored=True)
    assert chosen.blocks == blocks


def test_the_embedding_stays_in_memory_where_there_is_room() -> None:
    chosen = choose_ends(a_model(), ["webgpu"], 3_000 * MEGABYTE)
    assert chosen == EndsFootprint(a_model(), "webgpu", stored=False)


def test_rows_are_read_only_where_there_is_storage_and_a_table_to_read() -> None:
    model, free = a_model(), 744 * MEGABYTE
    odd = msgspec.structs.replace(model, embed=a_blob(model.embed.bytes + 64, "1"))
    assert choose_ends(model, ["webgpu"], free, storage=False) is None
    assert choose_ends(odd, ["webgpu"], free) is None
    least = least_ends(model, ["webgpu"])
    assert choose_ends(model, ["webgpu"], least) is not None
    assert choose_ends(model, ["webgpu"], least - 1) is None
