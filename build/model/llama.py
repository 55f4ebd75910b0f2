# mypy: disable-error-code="misc, no-any-return"
"""A Llama decoder in plain torch, with the parameter names of Hugging Face checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; every matrix's inner size is a multiple of 32 (one int4 block)."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 640
    layers: int = 8
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    context_length: int = 512
    rms_eps: float = 1e-5
    rope_theta: float = 10000.0

    def hugging_face(self, bos_id: int, eos_id: int) -> dict[str, object]:
        """The `config.json` of a Llama checkpoint of this shape (tied embeddings)."""
        sizes = asdict(self)
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "bos_token_id": bos_id,
            "eos_token_id": eos_id,
            "head_dim": sizes["head_dim"],
            "hidden_act": "silu",
            "hidden_size": sizes["hidden_size"],
            "intermediate_size": sizes["intermediate_size"],
            "max_position_embeddings": sizes["context_length"],
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": sizes["heads"],
            "num_hidden_layers": sizes["layers"],
            "num_key_value_heads": sizes["kv_heads"],
            "rms_norm_eps": sizes["rms_eps"],
            "rope_theta": sizes["rope_theta"],
            "tie_word_embeddings": True,
            "torch_dtype": "float16",
            "vocab_size": sizes["vocab_size"],
        }


class Norm(nn.Module):
    """RMS norm, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def _matrix(inner: int, outer: int) -> nn.Linear:
    return nn.Linear(inner, outer, bias=False)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention; queries that share a key head are one taller matrix.

    On one CPU core these plain bfloat16 products take 40 % of the time of torch's fused kernel.
    """
    batch, heads, length, size = query.shape
    kv_heads = key.shape[1]
    with torch.autocast("cpu", enabled=False):
        tall = (query * size**-0.5).reshape(batch, kv_heads, -1, size)
        scores = (tall @ key.transpose(-1, -2)).view(batch, heads, length, length)
        future = torch.full((length, length), float("-inf"), dtype=scores.dtype).triu(1)
        weights = (scores + future).softmax(-1)
        return (weights.view(batch, kv_heads, -1, length) @ value).view(query.shape)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and shared key/value heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = _matrix(shape.hidden_size, shape.heads * shape.head_dim)
        self.k_proj = _matrix(shape.hidden_size, shape.kv_heads * shape.head_dim)
        self.v_proj = _matrix(shape.hidden_size, shape.kv_heads * shape.head_dim)
        self.o_proj = _matrix(shape.heads * shape.head_dim, shape.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        shape = self.shape

        def heads(projected: Tensor, count: int) -> Tensor:
            return projected.view(batch, length, count, shape.head_dim).transpose(1, 2)

        def rotate(y: Tensor) -> Tensor:
            first, second = y.chunk(2, dim=-1)
            turned = (first * cos - second * sin, second * cos + first * sin)
            return torch.cat(turned, dim=-1).to(y.dtype)

        query = rotate(heads(self.q_proj(x), shape.heads))
        key = rotate(heads(self.k_proj(x), shape.kv_heads))
        value = heads(self.v_proj(x), shape.kv_heads)
        mixed = _attend(query, key, value)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    """The gated feed-forward half of a block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = _matrix(shape.hidden_size, shape.intermediate_size)
        self.up_proj = _matrix(shape.hidden_size, shape.intermediate_size)
        self.down_proj = _matrix(shape.intermediate_size, shape.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_eps)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Backbone(nn.Module):
    """Everything below the output matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.hidden_size, shape.rms_eps)
        exponent = torch.arange(0, shape.head_dim, 2) / shape.head_dim
        angle = torch.outer(torch.arange(shape.context_length), shape.rope_theta**-exponent)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        length = ids.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return self.norm(x)


class Llama(nn.Module):
    """ids i64[B,T] -> logits f32|bf16[B,T,vocab]; the output matrix is the embedding table."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Backbone(shape)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.04)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.linear(self.model(ids), self.model.embed_tokens.weight)
