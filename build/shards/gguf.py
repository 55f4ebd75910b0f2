"""A GGUF file as a source: llama.cpp's names and order of rows turned into Hugging Face's."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
from gguf.constants import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from build.shards.gguf_header import Header, TensorInfo
from build.shards.gguf_parts import read_parts
from build.shards.gguf_shape import file_type, generation_defaults, shape_of
from build.shards.gguf_tokenizer import end_ids, special_texts, tokenizer_json
from build.shards.huggingface_tokenizer import checked_chat
from build.shards.quantise import BLOCK, Bytes, Floats, Quantised
from build.shards.rope import RopeFactors
from build.shards.small_files import hash_files
from build.shards.source import Bits, CheckpointError, Progress, finite, silent, tensor_shapes
from build.shards.tokenizer import first_id, open_tokenizer

__all__ = ["GgufFile", "best_bits"]

_BITS: dict[Kind, Bits] = {
    Kind.F32: 4,
    Kind.F16: 4,
    Kind.BF16: 4,
    Kind.Q4_0: 4,
    Kind.Q8_0: 8,
    Kind.Q2_K: 4,
    Kind.Q3_K: 4,
    Kind.Q4_1: 8,
    Kind.IQ4_NL: 8,
    Kind.IQ4_XS: 8,
    Kind.Q4_K: 8,
    Kind.Q5_0: 8,
    Kind.Q5_1: 8,
    Kind.Q5_K: 8,
    Kind.Q6_K: 8,
}
"""The types that can be read, and the bits of a weight that keep what a file of each has."""

_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\Z")


class GgufFile:
    """A `Source`. Only the rows asked for are read."""

    def __init__(self, path: Path, context_length: int | None = None) -> None:
        """Raises `CheckpointError`: everything but the values of the weights is looked at here."""
        header, self._parts = read_parts(path)
        try:
            self._open(header, context_length)
        except CheckpointError as error:
            raise CheckpointError(f"{path.name}: {error}") from None

    def _open(self, header: Header, context_length: int | None) -> None:
        self._tensors = header.tensors
        factors = self._factors()
        self.shape = shape_of(header, factors, context_length)
        self._check_shapes()
        self._tokenizer = tokenizer_json(header)
        self.bos_id = first_id(open_tokenizer(self._tokenizer, self.shape.vocab_size))
        self.eos_ids = end_ids(header)
        for token in self.eos_ids:
            if not 0 <= token < self.shape.vocab_size:
                raise CheckpointError(f"the end token {token} is outside the vocabulary")
        self.license = header.get("general.license", str)
        self.chat = checked_chat(header.get("tokenizer.chat_template", str), special_texts(header))
        self.generation = generation_defaults(header)
        main = self._main_kind()
        self.format = f"GGUF {file_type(header) or main.name}"
        self.bits: Bits = _BITS[main]

    def digest(self, progress: Progress = silent) -> str:
        """sha256 of the file, or over those of its parts."""
        parts = hash_files(self._parts, progress)
        return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()

    def tokenizer(self) -> bytes:
        """A tokenizer.json that gives the ids of the file's own."""
        return self._tokenizer

    def has(self, name: str) -> bool:
        """Whether the file has this tensor."""
        return _gguf_name(name) in self._tensors

    def rows(self, name: str, first: int, last: int) -> Floats:
        """Rows [first, last) of the named tensor, as f32."""
        info = self._find(name)
        packed = self._rows(name, info, first, last)
        # Nonsense scales are found below, and need no warning besides.
        with np.errstate(all="ignore"):
            values: Floats = dequantize(packed, info.kind).astype(np.float32, copy=False)
        return finite(name, values)

    def tensor(self, name: str, *dims: int) -> Floats:
        """The whole tensor; `CheckpointError` when it is missing or of another shape."""
        found = self._find(name).dims
        if found != dims:
            raise CheckpointError(f"{name} is {found}, the metadata say {dims}")
        return self.rows(name, 0, dims[0])

    def quantised(self, name: str, bits: int, first: int, last: int) -> Quantised | None:
        """Rows of Q4_0 as 4 bits, of Q8_0 as 8: the same blocks of 32, ordered anew."""
        info = self._find(name)
        if (bits, info.kind) not in ((4, Kind.Q4_0), (8, Kind.Q8_0)):
            return None
        packed = self._rows(name, info, first, last)
        blocks = packed.reshape(last - first, info.dims[-1] // BLOCK, -1)
        scales = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0]
        finite(name, scales.astype(np.float32))
        levels = blocks[..., 2:]
        if bits == 8:
            return Quantised(packed=np.bitwise_xor(levels, 0x80, dtype=np.uint8), scales=scales)
        # Byte j there holds weights j and j + 16, here 2j and 2j + 1.
        nibbles = np.concatenate([levels & 15, levels >> 4], axis=-1)
        upper = np.left_shift(nibbles[..., 1::2], 4, dtype=np.uint8)
        return Quantised(packed=nibbles[..., 0::2] | upper, scales=scales)

    def _rows(self, name: str, info: TensorInfo, first: int, last: int) -> Bytes:
        """The bytes of rows [first, last), u8[rows, bytes]; of a vector, of its elements."""
        count = info.dims[0]
        if not 0 <= first <= last <= count:
            raise CheckpointError(f"{name} has {count} rows, not [{first}, {last})")
        heads = self._permuted(name)
        if heads is None:
            return self._read(info, first, last)
        # llama.cpp turns neighbouring rows of a head together, Hugging Face row i and half + i.
        size = count // heads
        begin, end = first // size * size, -(-last // size) * size
        rows = self._read(info, begin, end)
        halves = rows.reshape(-1, size // 2, 2, rows.shape[-1]).swapaxes(1, 2)
        return halves.reshape(rows.shape)[first - begin : last - begin]

    def _permuted(self, name: str) -> int | None:
        """The heads whose rows are ordered llama.cpp's way; None for any other tensor."""
        if self.shape.architecture == "llama":
            if ".self_attn.q_proj." in name:
                return self.shape.heads
            if ".self_attn.k_proj." in name:
                return self.shape.kv_heads
        return None

    def _read(self, info: TensorInfo, first: int, last: int) -> Bytes:
        vector = len(info.dims) == 1
        each = info.row_bytes // info.dims[0] if vector else info.row_bytes
        try:
            with info.path.open("rb") as file:
                file.seek(info.offset + first * each)
                data = file.read((last - first) * each)
        except OSError as error:
            raise CheckpointError(f"{info.path} cannot be read: {error}") from None
        if len(data) != (last - first) * each:
            raise CheckpointError(f"{info.path.name} became shorter while it was read")
        rows = np.frombuffer(data, np.uint8)
        return rows if vector else rows.reshape(last - first, each)

    def _find(self, name: str) -> TensorInfo:
        info = self._tensors.get(_gguf_name(name))
        if info is None:
            raise CheckpointError(f"there is no tensor {_gguf_name(name)}: is the file complete?")
        return info

    def _check_shapes(self) -> None:
        for name, dims in tensor_shapes(self.shape).items():
            info = self._find(name)
            if info.dims != dims:
                raise CheckpointError(f"{info.name} is {info.dims}, the metadata say {dims}")
            if info.kind not in _BITS or (len(dims) == 1 and info.kind not in _PLAIN):
                raise CheckpointError(
                    f"{info.name} is {info.kind.name}, which is not supported; these are:"
                    f" {', '.join(kind.name for kind in _BITS)}"
                )
        for name in self._tensors:
            if re.search(r"attn_(q|k|v|output)\.bias$", name) and not self.shape.qkv_bias:
                raise CheckpointError(f"the bias {name} is not supported for this architecture")

    def _factors(self) -> RopeFactors | None:
        info = self._tensors.get("rope_freqs.weight")
        if info is None:
            return None
        if len(info.dims) != 1 or info.kind != Kind.F32 or info.dims[0] > 512:
            raise CheckpointError("rope_freqs.weight is not a vector of at most 512 F32")
        values = self._read(info, 0, info.dims[0]).view("<f4")
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise CheckpointError("rope_freqs.weight has values that stretch nothing")
        return RopeFactors(tuple(float(value) for value in values))

    def _main_kind(self) -> Kind:
        """The type that most weights of the blocks have, by their number."""
        sums: dict[Kind, int] = {}
        for name, dims in tensor_shapes(self.shape).items():
            if len(dims) == 2 and name.startswith("model.layers."):
                kind = self._find(name).kind
                sums[kind] = sums.get(kind, 0) + dims[0] * dims[1]
        return max(sums, key=lambda kind: sums[kind])


_PLAIN = (Kind.F32, Kind.F16, Kind.BF16)


def best_bits(kind: Kind) -> Bits | None:
    """The bits of a weight that keep what a tensor of this type has; None: it cannot be read."""
    return _BITS.get(kind)


def _gguf_name(name: str) -> str:
    layer = _LAYER.match(name)
    if layer is None:
        return _ENDS.get(name, name)
    number, rest = layer.groups()
    if rest not in _NAMES:
        stem, _, suffix = rest.rpartition(".")
        return f"blk.{number}.{_NAMES.get(stem, stem)}.{suffix}"
    return f"blk.{number}.{_NAMES[rest]}"
