"""A Llama forward pass in plain numpy, float64: the independent word on what shards compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from build.shards.huggingface import Checkpoint

Array = NDArray[np.float64]
Weights = Callable[[str], Array]


@dataclass
class Oracle:
    """Logits of a whole sequence at once, no cache; `weights` gives a tensor by its name."""

    checkpoint: Checkpoint
    weights: Weights

    def logits(self, ids: list[int]) -> Array:
        """ids -> float64[len(ids), vocab]"""
        s, w = self.checkpoint.shape, self.weights
        x = w("model.embed_tokens.weight").astype(np.float16).astype(np.float64)[ids]
        for layer in range(s.blocks):
            at = f"model.layers.{layer}"
            y = self._norm(x, w(f"{at}.input_layernorm.weight"))
            x = x + self._attention(at, y) @ w(f"{at}.self_attn.o_proj.weight").T
            y = self._norm(x, w(f"{at}.post_attention_layernorm.weight"))
            gate, up = y @ w(f"{at}.mlp.gate_proj.weight").T, y @ w(f"{at}.mlp.up_proj.weight").T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w(f"{at}.mlp.down_proj.weight").T
        return self._norm(x, w("model.norm.weight")) @ w("lm_head.weight").T

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
            projected = x @ self.weights(f"{at}.self_attn.{name}.weight").T
            return projected.reshape(length, count, s.head_dim).transpose(1, 0, 2)

        query = self._turn(heads("q_proj", s.heads))
        key = self._turn(heads("k_proj", s.kv_heads))
        value = heads("v_proj", s.kv_heads)
        out = np.empty((s.heads, length, s.head_dim))
        for head in range(s.heads):
            shared = head // (s.heads // s.kv_heads)
            scores = query[head] @ key[shared].T / np.sqrt(s.head_dim)
            scores[np.triu_indices(length, 1)] = -np.inf
            powers = np.exp(scores - scores.max(-1, keepdims=True))
            out[head] = powers / powers.sum(-1, keepdims=True) @ value[shared]
        return out.transpose(1, 0, 2).reshape(length, -1)

    def _turn(self, x: Array) -> Array:
        half = x.shape[-1] // 2
        speeds = self.checkpoint.shape.rope_theta ** -(np.arange(half) / half)
        angles = np.arange(x.shape[1])[:, None] * speeds
        a, b = x[..., :half], x[..., half:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
