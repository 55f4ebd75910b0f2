"""The official `openai` client and `curl`, against a relay and a native node of the mesh."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

import pytest
from openai import AsyncStream
from openai.types import Completion
from tokenizers import Tokenizer

from pyodide_node.control import Control
from pyodide_node.hosts.native import native_host
from pyodide_node.model.manifest import decode_manifest
from relay_server.api.running import Running
from relay_server.settings import default_models
from tests.relay_server.api.world import MODEL, PROMPT, Place, eventually
from tests.relay_server.http import get

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES: Any = [
    {"role": "system", "content": "You know Python."},
    {"role": "user", "content": PROMPT},
]
SAMPLED: Any = {"temperature": 0.9, "top_p": 0.95, "seed": 7}


async def test_the_text_is_the_unsplit_models(mesh: Place) -> None:
    models = default_models()
    assert models is not None
    manifest = decode_manifest((models / MODEL / "manifest.json").read_bytes())
    reference = manifest.reference
    async with mesh.client() as client:
        answer = await client.completions.create(
            model=MODEL,
            prompt=reference.prompt,
            temperature=0,
            max_tokens=len(reference.ids),
        )
    described = (models / MODEL / "blobs" / manifest.tokenizer.sha256).read_bytes()
    first_end = next(
        (at for at, token in enumerate(reference.ids) if token in manifest.eos_ids), None
    )
    ids = reference.ids[:first_end]
    (choice,) = answer.choices
    assert choice.text == Tokenizer.from_str(described.decode()).decode(ids)
    assert choice.finish_reason == ("length" if first_end is None else "stop")
    assert answer.object == "text_completion"
    assert answer.model == MODEL
    assert answer.system_fingerprint == f"fp_{manifest.model_id[:12]}"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(reference.prompt_ids)
    assert answer.usage.completion_tokens == len(ids)
    assert answer.usage.total_tokens == len(reference.prompt_ids) + len(ids)


async def test_the_text_is_what_generate_prints(mesh: Place) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay_server", "generate", MODEL, PROMPT),
        *("--relay", mesh.relay.url, "--state", str(mesh.folder / "generate")),
        *("--max-new-tokens", "24", "--temperature", "0.9", "--top-p", "0.95", "--seed", "7"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()
    async with mesh.client() as client:
        answer = await client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=24, **SAMPLED
        )
    assert answer.choices[0].text + "\n" == printed.decode()


async def test_a_streamed_chat_is_the_pages(mesh: Place) -> None:
    """The page's calls go to `Control`, in a tab as here."""
    host = await native_host(mesh.folder / "page")
    posted: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    config = mesh.config(services=frozenset())
    control = Control(host, config, lambda text: posted.put_nowait(json.loads(text)))
    running = asyncio.create_task(control.run())
    params = {"messages": MESSAGES, "max_tokens": 24, **SAMPLED}
    control.deliver(json.dumps({"id": 1, "method": "generate", "params": params}))
    said: dict[str, Any] = {}
    while said.get("type") != "reply" or said["event"] == "chunk":
        said = await posted.get()
    control.stop()
    await running
    host.close()
    assert said["event"] == "done", said

    async with mesh.client() as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_completion_tokens=24, stream=True, **SAMPLED
        )
        chunks = [chunk async for chunk in stream]
        whole = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=24, **SAMPLED
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == said["value"]["text"] == whole.choices[0].message.content != ""
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [
        None,
        said["value"]["finish_reason"],
    ]
    assert len(chunks) > 10
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert whole.choices[0].message.role == "assistant"
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == said["value"]["usage"]["prompt_tokens"]
    assert whole.usage.completion_tokens == said["value"]["usage"]["completion_tokens"]


async def test_usage_comes_last_when_it_is_asked_for(mesh: Place) -> None:
    async with mesh.client() as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_tokens=5,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        *chunks, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_the_same_seed_gives_the_same_text(mesh: Place) -> None:
    async with mesh.client() as client:

        async def text(**more: Any) -> str:
            asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 16, **more}
            return str((await client.completions.create(**asked)).choices[0].text)

        assert await text(seed=1) == await text(seed=1)
        assert await text(seed=1) != await text(seed=2)


@pytest.mark.parametrize("several", [False, True])
async def test_it_ends_before_a_stop(mesh: Place, several: bool) -> None:
    async with mesh.client() as client:

        async def ask(**more: Any) -> Completion:
            asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 24, "temperature": 0, **more}
            answer = await client.completions.create(**asked)
            assert not isinstance(answer, AsyncStream)
            return answer

        text = (await ask()).choices[0].text
        word = text.split()[3]
        answer = await ask(stop=["never said", word] if several else word)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text == text[: text.index(word)]
    assert answer.usage is not None
    assert answer.usage.completion_tokens < 24


async def test_what_only_a_mesh_knows_may_be_asked_for_too(mesh: Place) -> None:
    async with mesh.client() as client:
        extra = {"top_k": 1, "repetition_penalty": 1.0}
        drawn = await client.completions.create(
            model=MODEL, prompt=[PROMPT], temperature=1, extra_body=extra
        )
        greedy = await client.completions.create(model=MODEL, prompt=PROMPT, temperature=0)
    assert drawn.choices[0].text == greedy.choices[0].text
    assert greedy.usage is not None
    assert greedy.usage.completion_tokens == 16


async def test_a_model_may_be_named_by_its_id(mesh: Place) -> None:
    async with mesh.client() as client:
        (model,) = (await client.models.list()).data
        identity = model.kwaainet["model_id"]  # type: ignore[attr-defined]
        answer = await client.completions.create(model=identity, prompt=PROMPT, max_tokens=1)
    assert answer.model == MODEL


async def test_a_prompt_that_is_too_long_is_said_so(mesh: Place) -> None:
    for stream, words in ((False, 3000), (True, 3000), (False, 100_000)):
        body = {"model": MODEL, "prompt": "word " * words, "stream": stream}
        answer = await mesh.ask(body=body)
        assert answer.status == 400
        assert answer.error["code"] == "context_length_exceeded"
        assert answer.error["param"] == "prompt"


async def test_answers_run_side_by_side(mesh: Place) -> None:
    async with mesh.client() as client:

        async def text(seed: int) -> str:
            answer = await client.completions.create(
                model=MODEL, prompt=PROMPT, seed=seed, max_tokens=12
            )
            return answer.choices[0].text

        together = await asyncio.gather(*map(text, range(4)))
        assert together == [await text(seed) for seed in range(4)]


async def curl(mesh: Place, path: str, body: dict[str, Any]) -> tuple[bytes, bytes]:
    """What it prints with -i, before and after the empty line."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sSNi", "--max-time", "60", f"{mesh.url}{path}"),
        *("-H", f"Authorization: Bearer {mesh.key}", "-H", "Content-Type: application/json"),
        *("-d", json.dumps(body)),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    head, _, rest = printed.partition(b"\r\n\r\n")
    return head, rest


async def test_curl_gets_a_stream_as_openai_writes_it(mesh: Place) -> None:
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 4, "temperature": 0}
    head, body = await curl(mesh, "/chat/completions", {**asked, "stream": True})
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-type: text/event-stream" in head
    assert b"reads prompts" in head
    *events, done, end = body.decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    parsed = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    opening, *middle, ending = parsed
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert ending["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    ]
    assert all(set(one["choices"][0]["delta"]) == {"content"} for one in middle)
    assert not any("usage" in one for one in parsed)

    _, body = await curl(mesh, "/chat/completions", asked)
    message = json.loads(body)["choices"][0]["message"]
    assert message["content"] == "".join(one["choices"][0]["delta"]["content"] for one in middle)


async def test_curl_gets_a_streamed_completion(mesh: Place) -> None:
    asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "stream": True}
    _, body = await curl(mesh, "/completions", asked)
    *events, done, _ = body.decode().split("\n\n")
    parsed = [json.loads(event.removeprefix("data: ")) for event in events]
    assert done == "data: [DONE]"
    assert {one["object"] for one in parsed} == {"text_completion"}
    assert parsed[-1]["choices"][0] == {
        "index": 0,
        "text": "",
        "logprobs": None,
        "finish_reason": "length",
    }


async def test_what_was_used_is_counted(mesh: Place) -> None:
    key = mesh.add_key("counted")
    async with mesh.client(key) as client:
        answer = await client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=9)
    assert answer.usage is not None

    async def settled() -> bool:
        used = mesh.usage(key)
        return (used.requests, used.prompt_tokens, used.completion_tokens) == (
            1,
            answer.usage.prompt_tokens,
            answer.usage.completion_tokens,
        )

    await eventually(settled)
    told = (await get(mesh.relay.url, "/metrics")).body.decode()
    assert re.search(r"kwaainet_relay_api_answers_total [1-9]", told)
    assert re.search(r'kwaainet_relay_api_tokens_total{kind="completion"} [1-9]', told)
    assert re.search(r'kwaainet_relay_api_tokens_total{kind="prompt"} [1-9]', told)
    labels = r'endpoint="/completions",status="200"'
    assert re.search(rf"kwaainet_relay_api_requests_total{{{labels}}} [1-9]", told)
    timed = r'kwaainet_relay_api_request_duration_seconds_count{endpoint="/completions"} [1-9]'
    assert re.search(timed, told)
    assert "kwaainet_relay_model_thinnest_block_nodes{model=" in told


async def test_a_mistake_of_ours_in_a_stream_is_told_and_logged(
    mesh: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(running: Running, chunk: object) -> None:
        raise ZeroDivisionError("the secret plan")

    monkeypatch.setattr(Running, "add", broken)
    answer = await mesh.ask(body={"model": MODEL, "prompt": PROMPT, "stream": True})
    assert b'"internal_error"' in answer.body
    assert b"secret" not in answer.body
    assert b"[DONE]" not in answer.body
    assert any(record.exc_info for record in caplog.records)


async def test_silence_is_filled_with_comments_that_clients_skip(
    mesh: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_server.api.endpoints.KEEP_ALIVE", 0.001)
    asked: Any = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 8}
    assert b"\n: " in (await mesh.ask(body={**asked, "stream": True})).body
    async with mesh.client() as client:
        stream = await client.completions.create(stream=True, **asked)
        text = "".join([chunk.choices[0].text async for chunk in stream])
        assert text == (await client.completions.create(**asked)).choices[0].text
