"""`kwaainet generate`: ask the network from a terminal."""

from __future__ import annotations

import asyncio
import secrets
import sys
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.native import native_host
from pyodide_node.inference.asker import Answer
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.inference.sampling import Sampling
from relay_server.commands.node_options import NodeOptions, state_directory

__all__ = ["generate"]


def generate(
    model: str,
    prompt: str,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 1.0,
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
        Text to continue.
    max_new_tokens
        Tokens at most.
    temperature
        0 is greedy: always the likeliest token.
    top_k
        Draw from the k likeliest tokens only; 0 is off.
    top_p
        Draw from the likeliest tokens that together have this probability.
    seed
        The same seed gives the same text.
    stop
        End before this text; may be repeated.
    serve
        Hold blocks too, rather than only ask.
    """
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=secrets.randbits(48) if seed is None else seed,
    )
    request = InferenceRequest(
        prompt=prompt, max_tokens=max_new_tokens, sampling=sampling, stop=stop
    )
    asyncio.run(_generate(model, request, serve, options or NodeOptions()))


async def _generate(
    model: str, request: InferenceRequest, serve: bool, options: NodeOptions
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
            status.update("Waiting for the first token")
            async for chunk in core.run_inference(request, answers.append):
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
