"""`kwaainet generate`: ask the network from a terminal."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from pyodide_node.chat.chat import ChatMessage
from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.native import native_host
from pyodide_node.inference.asker import Answer
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.inference.sampling import Sampling
from pyodide_node.model.manifest import GenerationDefaults
from relay_server.commands.node_options import NodeOptions, state_directory

__all__ = ["generate"]


def generate(
    model: str,
    prompt: str,
    *,
    max_new_tokens: int = 128,
    chat: bool = False,
    system: str = "",
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    stop: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    serve: bool = False,
    options: NodeOptions | None = None,
) -> None:
    """Continue PROMPT with MODEL and print the text as it comes.

    Tokenizer, embedding, head and sampling run here; the blocks run on the network's nodes.

    Parameters
    ----------
    model
        Name of a model that the relay offers; "" is the first of them.
    prompt
        Text to continue, or what to say with --chat.
    max_new_tokens
        Tokens at most.
    chat
        Answer PROMPT in the form of the model's chat template, instead of continuing it.
    system
        What the model is told before the conversation, with --chat.
    temperature
        0 is greedy: always the likeliest token. What is not given here and below is as the model's
        makers have it, or else 0.7 and the rest off.
    top_k
        Draw from the k likeliest tokens only; 0 is off.
    top_p
        Draw from the likeliest tokens that together have this probability.
    repetition_penalty
        Above 1, tokens that have been there already become less likely; 1 is off.
    seed
        The same seed gives the same text.
    stop
        End before this text; may be repeated.
    serve
        Hold blocks too, rather than only ask.
    """
    asked = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
    }
    drawn = secrets.randbits(48) if seed is None else seed
    said = (ChatMessage("system", system),) if system else ()

    def request(defaults: GenerationDefaults | None) -> InferenceRequest:
        return InferenceRequest(
            prompt=prompt,
            messages=(*said, ChatMessage("user", prompt)) if chat else (),
            max_tokens=max_new_tokens,
            sampling=Sampling.of(defaults, seed=drawn, **asked),
            stop=stop,
        )

    request(None)  # what makes no sense is said before anybody is joined
    asyncio.run(_generate(model, request, serve, options or NodeOptions()))


async def _generate(
    model: str,
    request: Callable[[GenerationDefaults | None], InferenceRequest],
    serve: bool,
    options: NodeOptions,
) -> None:
    console = Console(stderr=True, highlight=False)
    state = state_directory(options.state)
    # An asker has an identity of its own, so that it can run beside a node of this machine.
    host = await native_host(state / "asker", cache_dir=state / "cache", threads=options.threads)
    config = options.config(model, frozenset({"compute"} if serve else set()))
    answers: list[Answer] = []
    with console.status("Joining the network") as status:
        core = KwaaiNetCore(host, config, progress=lambda stage, text, share: status.update(text))
        try:
            await core.initialize()
            assert core.model is not None
            asked = request(core.model.manifest.generation)
            status.update("Waiting for the first token")
            async for chunk in core.run_inference(asked, answers.append):
                status.stop()
                sys.stdout.write(chunk.text)
                sys.stdout.flush()
        finally:
            await core.close()
            host.close()
    sys.stdout.write("\n")
    answer = answers[-1]
    hops = " → ".join(
        f"{hop['first_block']}-{hop['last_block']} {hop['host']} by {hop['path']}"
        for hop in answer.route
    )
    console.print(
        f"[dim]{len(answer.ids)} tokens, {answer.decode_tok_s:.1f} a second,"
        f" first after {answer.ttft_ms:.0f} ms; blocks {hops}"
    )
