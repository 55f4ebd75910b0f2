"""A decoder's forward pass in plain numpy, float64: the independent word on what shards compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from build.shards.quantise import Floats, dequantise, quantise
from build.shards.rope import rotary_tables
from build.shards.source import Bits, Source, tensor_shapes

Array = NDArray[np.float64]
Weights = Callable[[str], Array]


@dataclass
class Oracle:
    """Logits of a whole sequence at once, no cache; `weights` gives a tensor by its name."""

    checkpoint: Source
    weights: Weights

    def logits(self, ids: list[int]) -> Array:
        """ids -> float64[len(ids), vocab]"""
        s, w = self.checkpoint.shape, self.weights
        x = w("embed")[ids]
        for layer in range(s.blocks):
            at = f"model.layers.{layer}"
            y = self._norm(x, w(f"{at}.input_layernorm.weight"))
            x = x + self._attention(at, y) @ w(f"{at}.self_attn.o_proj.weight").T
            y = self._norm(x, w(f"{at}.post_attention_layernorm.weight"))
            gate, up = y @ w(f"{at}.mlp.gate_proj.weight").T, y @ w(f"{at}.mlp.up_proj.weight").T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w(f"{at}.mlp.down_proj.weight").T
        return self._norm(x, w("model.norm.weight")) @ w("head").T

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """`count` greedy ids, recomputing everything at each."""
        ids = list(prompt)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(prompt) :]

    def _norm(self, x: Array, weight: Array) -> Array:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + self.checkpoint.shape.rms_eps) * weight

    def _attention(self, at: str, x: Array) -> Array:
        s = self.checkpoint.shape
        length = len(x)

        def heads(name: str, count: int) -> Array:
            projected = x @ self.weights(f"{at}.self_attn.{name}_proj.weight").T
            if s.qkv_bias:
                projected = projected + self.weights(f"{at}.self_attn.{name}_proj.bias")
            split = projected.reshape(length, count, s.head_dim)
            if s.qk_norm and name != "v":
                split = self._norm(split, self.weights(f"{at}.self_attn.{name}_norm.weight"))
            return split.transpose(1, 0, 2)

        query = self._turn(heads("q", s.heads))
        key = self._turn(heads("k", s.kv_heads))
        value = heads("v", s.kv_heads)
        out = np.empty((s.heads, length, s.head_dim))
        for head in range(s.heads):
            shared = head // (s.heads // s.kv_heads)
            scores = query[head] @ key[shared].T / np.sqrt(s.head_dim)
            scores[np.triu_indices(length, 1)] = -np.inf
            powers = np.exp(scores - scores.max(-1, keepdims=True))
            out[head] = powers / powers.sum(-1, keepdims=True) @ value[shared]
        return out.transpose(1, 0, 2).reshape(length, -1)

    def _turn(self, x: Array) -> Array:
        s = self.checkpoint.shape
        cos, sin = rotary_tables(x.shape[1], s.head_dim, s.rope_theta, s.rope_scaling)
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def rounded(source: Source, bits: Bits, ends: Bits) -> Oracle:
    """The oracle on the weights as files of so many bits hold them."""
    s, shapes, cache = source.shape, tensor_shapes(source.shape), dict[str, Array]()

    def narrow(matrix: Floats, to: Bits) -> Floats:
        if to == 4 or to == 8:
            return dequantise(quantise(matrix, to))
        return matrix.astype(np.float16).astype(np.float32) if to == 16 else matrix

    def read(name: str) -> Floats:
        if name in ("embed", "head"):
            own = name == "head" and not s.tied
            tensor = "lm_head.weight" if own else "model.embed_tokens.weight"
            return narrow(source.tensor(tensor, *shapes[tensor]), ends)
        value = source.tensor(name, *shapes[name])
        return narrow(value, bits) if value.ndim == 2 else value

    def weights(name: str) -> Array:
        if name not in cache:
            cache[name] = read(name).astype(np.float64)
        return cache[name]

    return Oracle(source, weights)
