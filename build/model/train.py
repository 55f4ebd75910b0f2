# mypy: disable-error-code="untyped-decorator, no-any-return, misc"
"""Trains the default model on one CPU core and writes a Hugging Face checkpoint.

    python -m build.model.train build/model/kwaai-docs --minutes 44

The learning rate falls to zero at the end of the budget, so the budget is chosen first: either
`--minutes` of wall time, or `--steps`, which makes the run repeatable to the bit on one machine.
Muon turns the hidden matrices, AdamW the rest; forward and backward run in bfloat16 where
autocast allows it. Needs torch (`pip install torch==2.13.0 safetensors tokenizers`) and the
Debian packages that `corpus.py` names.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from build.model import corpus
from build.model.llama import Llama, Shape

BOS, EOS = "<|bos|>", "<|eos|>"
MATRIX_RATE, OTHER_RATE = 0.02, 0.004
LONG_FROM = 0.75
"""Share of the budget after which windows are as long as the context the model is served with."""
SAVE_EVERY = 300.0
"""Seconds between checkpoints, so that an interrupted run still leaves a model."""

PROMPTS = (
    "The function returns",
    "If the file does not exist,",
    "A transaction is",
    "This section describes how",
    "The database server",
)


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE; id 0 is `<|bos|>`, id 1 is `<|eos|>`; neither is added by encoding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def token_stream(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """All paragraphs in order, each between `<|bos|>` and `<|eos|>`: i64[tokens]."""
    ids: list[int] = []
    for encoded in tokenizer.encode_batch(texts):
        ids += [0, *encoded.ids, 1]
    return torch.tensor(ids)


def orthogonal(gradients: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices of a stack f32[n,rows,columns] (Newton-Schulz)."""
    x = gradients.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon:
    """Momentum whose steps are orthogonalised; matrices of one shape go together."""

    def __init__(self, matrices: list[torch.nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        self.groups: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.state = {key: torch.zeros(len(group), *key) for key, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for (rows, columns), group in self.groups.items():
            gradient = torch.stack([matrix.grad for matrix in group])
            state = self.state[rows, columns]
            state.mul_(self.momentum).add_(gradient)
            update = orthogonal(gradient.add(state, alpha=self.momentum))
            scale = rate * max(1.0, rows / columns) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.add_(change, alpha=-scale)
                matrix.grad = None


def loss_of(model: Llama, windows: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token of windows i64[B,T+1]."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(windows[:, :-1])
    flat = logits.float().view(-1, logits.shape[-1])
    return torch.nn.functional.cross_entropy(flat, windows[:, 1:].reshape(-1))


@torch.no_grad()
def validate(model: Llama, stream: Tensor, most: int, length: int = 256) -> float:
    """Mean loss over the first `most` disjoint windows of a stream."""
    count = min(most, (len(stream) - 1) // length)
    starts = range(0, count * length, length)
    windows = torch.stack([stream[start : start + length + 1] for start in starts])
    parts = windows.split(8)
    return sum(loss_of(model, part).item() * len(part) for part in parts) / count


@torch.no_grad()
def sample(model: Llama, tokenizer: Tokenizer, prompt: str, temperature: float, seed: int) -> str:
    """Up to 60 tokens after a prompt; temperature 0 is greedy, else top-40 sampling."""
    generator = torch.Generator().manual_seed(seed)
    ids = [0, *tokenizer.encode(prompt).ids]
    for _ in range(60):
        logits = model(torch.tensor([ids]))[0, -1].float()
        if temperature == 0:
            choice = int(logits.argmax())
        else:
            best = logits.topk(40)
            weights = (best.values / temperature).softmax(-1)
            choice = int(best.indices[weights.multinomial(1, generator=generator)])
        if choice == 1:
            break
        ids.append(choice)
    return str(tokenizer.decode(ids))


def save(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes model.safetensors (float16), config.json, tokenizer.json and its config."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    partial = folder / "model.safetensors.part"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.rename(folder / "model.safetensors")
    config = json.dumps(model.shape.hugging_face(0, 1), indent=2)
    (folder / "config.json").write_text(config + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    about = {
        "add_bos_token": True,
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "model_max_length": model.shape.context_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the default model on a CPU.")
    parser.add_argument("out", type=Path, help="folder for the checkpoint")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="wall time to train")
    budget.add_argument("--steps", type=int, help="steps to train (repeatable)")
    parser.add_argument("--batch", type=int, default=12, help="windows of 256 tokens a step")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    texts, held_out = corpus.load()
    shape = Shape()
    tokenizer = train_tokenizer(texts, shape.vocab_size)
    stream, unseen = token_stream(tokenizer, texts), token_stream(tokenizer, held_out)
    model = Llama(shape)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{size} parameters, {len(stream)} training and {len(unseen)} held-out tokens", flush=True
    )

    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "layers" in name]
    rest = [p for name, p in named if not (p.ndim == 2 and "layers" in name)]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(rest, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0)

    began = told = saved = time.monotonic()
    steps = tokens = 0
    while True:
        elapsed = time.monotonic() - began
        done = steps / options.steps if options.steps else elapsed / (options.minutes * 60)
        if done >= 1:
            break
        pace = min(1.0, (steps + 1) / 60) * min(1.0, (1 - done) / 0.6)
        length = 256 if done < LONG_FROM else shape.context_length
        starts = torch.randint(len(stream) - length, (options.batch * 256 // length,))
        windows = torch.stack([stream[start : start + length + 1] for start in starts])
        loss = loss_of(model, windows)
        loss.backward()
        muon.step(MATRIX_RATE * pace)
        for group in adam.param_groups:
            group["lr"] = OTHER_RATE * pace
        adam.step()
        adam.zero_grad(set_to_none=True)
        steps += 1
        tokens += options.batch * 256
        now = time.monotonic()
        if steps == 20 or now - told > 60:
            told = now
            score = validate(model, unseen, 24)
            print(
                f"{done:4.0%} step {steps} {tokens} tokens {tokens / (now - began):.0f}/s "
                f"loss {loss.item():.3f} held out {score:.3f}",
                flush=True,
            )
        if now - saved > SAVE_EVERY:
            saved = now
            save(model, tokenizer, options.out)

    model.load_state_dict({name: value.half() for name, value in model.state_dict().items()})
    save(model, tokenizer, options.out)
    score = validate(model, unseen, 10**6)
    print(f"{steps} steps, {tokens} tokens, {time.monotonic() - began:.0f} s")
    print(f"held-out loss {score:.4f} nats a token, perplexity {math.exp(score):.1f}")
    for prompt in PROMPTS:
        print(f"greedy : {sample(model, tokenizer, prompt, 0, 1)}")
        print(f"sampled: {sample(model, tokenizer, prompt, 0.7, 1)}")


if __name__ == "__main__":
    main()
