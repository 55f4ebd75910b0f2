"""Weight files: where the bytes lie, what they are, and how they expand to fp32."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest

from build.shards.layout import Part, Slot, expansion, lay_out, size_of
from build.shards.quantise import Floats, Quantised, dequantise, quantise
from build.shards.source import Bits, CheckpointError
from build.shards.weights import contents
from pyodide_node.hosts.expansion import expand
from pyodide_node.model.manifest import ALIGN

DRAW = np.random.default_rng(4)
TENSORS: dict[str, Floats] = {
    "norm": DRAW.standard_normal(33).astype(np.float32),
    "a": DRAW.standard_normal((40, 64)).astype(np.float32),
    "b": DRAW.standard_normal((8, 64)).astype(np.float32),
}
BOTH = np.concatenate([TENSORS["a"], TENSORS["b"]])


@dataclasses.dataclass
class Few:
    """As much of a `Source` as files are made from."""

    tensors: Mapping[str, Floats]
    kept: Quantised | None = None

    def tensor(self, name: str, *dims: int) -> Floats:
        assert self.tensors[name].shape == dims
        return self.tensors[name]

    def rows(self, name: str, first: int, last: int) -> Floats:
        return self.tensors[name][first:last]

    def quantised(self, name: str, bits: int, first: int, last: int) -> Quantised | None:
        if name != "a" or self.kept is None or self.kept.bits != bits:
            return None
        return Quantised(self.kept.packed[first:last], self.kept.scales[first:last])


def parts(bits: Bits, turned: bool = True) -> list[Part]:
    return [
        Part("norm", ("norm",), (33,)),
        Part("matrix", ("a", "b"), (40, 8), 64, bits, turned),
        Part("last", ("norm",), (33,)),
    ]


def written(few: Few, parts: list[Part]) -> tuple[dict[str, Slot], bytes]:
    file = bytearray()
    slots = {}
    for slot, chunks in contents(few, parts):  # type: ignore[arg-type]
        file.extend(bytes(slot.offset - len(file)))
        for chunk in chunks:
            file.extend(chunk)
        assert len(file) == slot.end
        slots[slot.name] = slot
    return slots, bytes(file)


def array(file: bytes, slot: Slot) -> np.ndarray:
    flat = np.frombuffer(file, slot.dtype, int(np.prod(slot.dims)), slot.offset)
    return flat.reshape(slot.dims)


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_slots_lie_aligned_and_in_order(bits: Bits) -> None:
    slots = lay_out(parts(bits))
    assert all(slot.offset % ALIGN == 0 for slot in slots)
    assert all(a.end <= b.offset < a.end + ALIGN for a, b in pairwise(slots))
    made, file = written(Few(TENSORS), parts(bits))
    assert list(made.values()) == slots
    assert len(file) == size_of(slots)


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_are_the_quantised_rows_of_all_tensors(bits: Bits) -> None:
    slots, file = written(Few(TENSORS), parts(bits))
    want = quantise(BOTH, bits)  # type: ignore[arg-type]
    assert np.array_equal(array(file, slots["matrix.packed"]), want.packed)
    assert np.array_equal(array(file, slots["matrix.scales"]), want.scales)
    assert np.array_equal(array(file, slots["norm"]), TENSORS["norm"])


@pytest.mark.parametrize(("bits", "dtype"), [(16, np.float16), (32, np.float32)])
def test_floats_are_turned_for_matmul_or_kept_as_a_table(bits: Bits, dtype: type) -> None:
    slots, file = written(Few(TENSORS), parts(bits))
    assert np.array_equal(array(file, slots["matrix"]), BOTH.astype(dtype).T)
    slots, file = written(Few(TENSORS), parts(bits, turned=False))
    assert np.array_equal(array(file, slots["matrix"]), BOTH.astype(dtype))


def test_takes_blocks_as_the_source_has_them() -> None:
    """Rounding them again could change them."""
    kept = quantise(TENSORS["a"] * 3, 4)
    slots, file = written(Few(TENSORS, kept), parts(4))
    packed = array(file, slots["matrix.packed"])
    assert np.array_equal(packed[:40], kept.packed)
    assert np.array_equal(packed[40:], quantise(TENSORS["b"], 4).packed)
    assert np.array_equal(array(file, slots["matrix.scales"])[:40], kept.scales)


@pytest.mark.parametrize("bits", [4, 8])
def test_expanding_blocks_gives_the_transposed_matrix(bits: Bits) -> None:
    slots, file = written(Few(TENSORS), parts(bits))
    wide, steps = expansion(list(slots.values()))
    made = expand(file, steps)
    at = {slot.name: slot for slot in wide}
    assert list(at) == ["norm", "matrix", "last"]
    assert at["matrix"].dims == (64, 48)
    want = dequantise(quantise(BOTH, bits))  # type: ignore[arg-type]
    assert np.array_equal(array(made, at["matrix"]), want.T)
    assert np.array_equal(array(made, at["last"]), TENSORS["norm"])


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("bits", [16, 32])
def test_expanding_floats_keeps_their_order(bits: Bits, turned: bool) -> None:
    slots, file = written(Few(TENSORS), parts(bits, turned))
    wide, steps = expansion(list(slots.values()))
    made = expand(file, steps)
    assert [slot.dims for slot in wide] == [slot.dims for slot in slots.values()]
    for slot in wide:
        assert slot.dtype == "float32"
        assert np.array_equal(array(made, slot), array(file, slots[slot.name]))


@pytest.mark.parametrize("name", ["norm", "b"])
@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_refuses_what_is_no_number(bits: Bits, name: str) -> None:
    broken = TENSORS[name].copy()
    broken.flat[7] = np.nan
    with pytest.raises(CheckpointError, match=f"{name} holds NaN"):
        written(Few(TENSORS | {name: broken}), parts(bits))


def test_refuses_numbers_too_large_for_16_bits() -> None:
    with pytest.raises(CheckpointError, match="--bits 32"):
        written(Few(TENSORS | {"b": TENSORS["b"] * 1e6}), parts(16))
    written(Few(TENSORS | {"b": TENSORS["b"] * 1e6}), parts(32))


def test_refuses_rows_and_blocks_of_another_form() -> None:
    with pytest.raises(CheckpointError, match="another size"):
        written(Few(TENSORS | {"a": TENSORS["a"][:, :32]}), parts(16))
    narrow = quantise(TENSORS["a"][:, :32], 4)
    with pytest.raises(CheckpointError, match=r"not \[40, 64\]"):
        written(Few(TENSORS, narrow), parts(4))
    endless = quantise(TENSORS["a"], 4)
    endless.scales[3, 1] = np.inf
    with pytest.raises(CheckpointError, match="scale"):
        written(Few(TENSORS, endless), parts(4))
