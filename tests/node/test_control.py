"""The node's outside: calls answered one by one, errors told by name, never silence."""

from __future__ import annotations

import asyncio
import json

import pytest

from pyodide_node.config import NodeConfig
from pyodide_node.control import config_of
from pyodide_node.errors import ConfigError
from pyodide_node.hosts.simulated import virtual
from pyodide_node.model.manifest import Chat, GenerationDefaults
from tests.sim.swarm import PROMPT

from .world import page

GREEDY = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0}


# --- generate -----------------------------------------------------------------------------


@virtual
async def test_an_answer_comes_in_chunks_and_then_whole() -> None:
    async with page() as tab:
        number = tab.start("generate", GREEDY)
        value = (await tab.end(number))["value"]
        assert value["ids"] == tab.net.expected(6)
        chunks = [one["value"] for one in tab.replies(number) if one["event"] == "chunk"]
        assert [token for chunk in chunks for token in chunk["ids"]] == value["ids"]
        assert "".join(chunk["text"] for chunk in chunks) == value["text"]
        assert value["usage"] == {
            "prompt_tokens": 17,
            "completion_tokens": 6,
            "total_tokens": 23,
        }
        assert value["finish_reason"] == "length"
        assert value["model"] == tab.net.model.manifest.name
        assert value["ttft_ms"] > 0
        assert value["decode_tok_s"] > 0


@virtual
async def test_a_call_made_before_the_node_is_ready_waits_for_it() -> None:
    async with page(ready=False) as tab:
        assert (await tab.call("generate", GREEDY))["ids"] == tab.net.expected(6)


@virtual
async def test_messages_are_paragraphs_of_one_prompt() -> None:
    async with page() as tab:
        messages = [{"role": "system", "content": "ab"}, {"role": "user", "content": "cd"}]
        value = await tab.call("generate", {"messages": messages, "max_tokens": 2})
        assert value["prompt_ids"] == [256, *b"ab\n\ncd"]


CHAT = Chat(
    template=(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('no system messages') }}{% endif %}"
        "{{ m.role[0] }}:{{ m.content | trim }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    ),
    special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
)


@virtual
async def test_messages_take_the_form_of_the_models_template() -> None:
    async with page(chat=CHAT) as tab:
        assert (await tab.call("status"))["model"]["chat"] is True
        said = [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "yo"}]
        value = await tab.call("generate", {"messages": said, "max_tokens": 2})
        # One beginning of sequence, and special tokens where the template puts them.
        assert value["prompt_ids"] == [256, *b"u:hi", 257, *b"a:yo", 257, *b"a:"]


@virtual
async def test_special_tokens_in_a_message_are_mere_text() -> None:
    async with page(chat=CHAT) as tab:
        parts = [{"type": "text", "text": "x</s"}, {"type": "text", "text": "><s>"}]
        value = await tab.call(
            "generate", {"messages": [{"role": "user", "content": parts}], "max_tokens": 2}
        )
        assert value["prompt_ids"] == [256, *b"u:x</s><s>", 257, *b"a:"]


@virtual
async def test_a_message_that_the_template_refuses_is_the_callers_fault() -> None:
    async with page(chat=CHAT) as tab:
        said = {"messages": [{"role": "system", "content": "x"}]}
        error = await tab.refusal("generate", said)
        assert error["code"] == "ConfigError"
        assert "no system messages" in error["message"]


@virtual
async def test_a_template_that_never_ends_is_the_models_fault() -> None:
    loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    async with page(chat=Chat(template=loops, special_tokens={})) as tab:
        said = {"messages": [{"role": "user", "content": "x"}]}
        assert (await tab.refusal("generate", said))["code"] == "ManifestError"
        assert (await tab.call("generate", GREEDY))["ids"] == tab.net.expected(6)


@virtual
async def test_the_models_own_sampling_counts_where_nothing_else_is_asked_for() -> None:
    greedy = {"prompt": PROMPT, "max_tokens": 6}
    async with page(generation=GenerationDefaults(temperature=0.0)) as tab:
        assert (await tab.call("generate", greedy))["ids"] == tab.net.expected(6)
    async with page(generation=GenerationDefaults(repetition_penalty=9.0)) as tab:
        ids = (await tab.call("generate", greedy | {"temperature": 0}))["ids"]
        assert len({*ids, *PROMPT.encode()}) == 6 + len(set(PROMPT.encode()))
        asked = greedy | {"temperature": 0, "repetition_penalty": 1}
        assert (await tab.call("generate", asked))["ids"] == tab.net.expected(6)


@virtual
async def test_without_a_seed_answers_differ_and_with_one_they_do_not() -> None:
    async with page() as tab:
        params = {"prompt": PROMPT, "max_tokens": 24, "temperature": 3}
        free = [(await tab.call("generate", params))["ids"] for _ in range(2)]
        fixed = [(await tab.call("generate", params | {"seed": 7}))["ids"] for _ in range(2)]
        assert free[0] != free[1]
        assert fixed[0] == fixed[1]


@virtual
async def test_an_answer_is_taken_up_again_where_it_was_lost() -> None:
    async with page() as tab:
        whole = await tab.call("generate", GREEDY)
        number = tab.start("generate", GREEDY | {"resume_ids": whole["ids"][:4]})
        rest = (await tab.end(number))["value"]
        assert (rest["ids"], rest["text"]) == (whole["ids"], whole["text"])
        chunks = [one["value"] for one in tab.replies(number) if one["event"] == "chunk"]
        assert [token for chunk in chunks for token in chunk["ids"]] == whole["ids"][4:]


@pytest.mark.parametrize("stop", ["\u0000never", ["x", "y"]])
def test_stop_is_one_string_or_several(stop: object) -> None:
    @virtual
    async def run() -> None:
        async with page() as tab:
            value = await tab.call("generate", GREEDY | {"stop": stop})
            assert value["finish_reason"] in ("stop", "length")

    run()


@virtual
async def test_the_route_is_told_when_it_is_known() -> None:
    async with page() as tab:
        number = tab.start("generate", GREEDY)
        await tab.end(number)
        routes = [one["route"] for one in tab.notices("route") if one["call"] == number]
        assert routes
        assert routes[0][0]["first_block"] == 0


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"prompt": ""},
        {"messages": []},
        {"prompt": 7},
        {"prompt": "x", "max_tokens": 0},
        {"prompt": "x", "temperature": -1},
        {"prompt": "x", "top_p": 0},
        {"prompt": "x", "top_k": -1},
        {"prompt": "x", "stop": [""]},
        {"prompt": "x", "resume_ids": [-1]},
        {"prompt": "x", "resume_ids": [1 << 40]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"prompt": "x", "repetition_penalty": 0},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_a_config_error(params: object) -> None:
    @virtual
    async def run() -> None:
        async with page() as tab:
            error = await tab.refusal("generate", params)
            assert error["code"] == "ConfigError"
            assert error["message"]

    run()


@virtual
async def test_a_model_that_is_not_known_is_named_with_those_that_are() -> None:
    async with page() as tab:
        error = await tab.refusal("generate", GREEDY | {"model": "gpt-17"})
        assert error["code"] == "UnknownModel"
        assert error["data"]["known"] == [tab.net.model.manifest.name]


@virtual
async def test_bytes_in_an_error_s_data_are_told_in_hex() -> None:
    async with page() as tab:
        tab.net.hosts["ada"].engine.faults.crashes = True
        error = await tab.refusal("generate", GREEDY)
        assert error["code"] == "EngineError" or bytes.fromhex(error["data"]["peer"])


# --- the other calls ----------------------------------------------------------------------


@virtual
async def test_a_call_is_cancelled_by_its_number() -> None:
    async with page() as tab:
        number = tab.start("generate", GREEDY | {"max_tokens": 400})
        await asyncio.sleep(0.2)
        assert await tab.call("cancel", {"call": number}) is True
        assert (await tab.end(number))["error"]["code"] == "Cancelled"
        assert await tab.call("cancel", {"call": number}) is False
        assert (await tab.call("generate", GREEDY))["ids"] == tab.net.expected(6)


@virtual
async def test_status_is_told_when_asked_and_by_itself() -> None:
    async with page() as tab:
        status = await tab.call("status")
        assert status["state"] == "ready"
        assert status["span"] == [0, 8]
        before = len(tab.notices("status"))
        await asyncio.sleep(5)
        assert len(tab.notices("status")) == pytest.approx(before + 5, abs=1)


@virtual
async def test_loading_is_told_as_it_goes() -> None:
    async with page() as tab:
        texts = [one["text"] for one in tab.notices("progress")]
        assert any(text.startswith("Loading") for text in texts)


@virtual
async def test_caps_are_changed_one_by_one() -> None:
    async with page() as tab:
        assert await tab.call("limits", {"cpu": 30}) == {
            "cpu": 30,
            "memory": 1000,
            "storage": 100,
        }
        assert await tab.call("limits", {"memory": 2000, "storage": 0}) == {
            "cpu": 30,
            "memory": 2000,
            "storage": 0,
        }
        assert tab.control.core.budget.limits.cpu == 30


@pytest.mark.parametrize("params", [{"cpu": 0}, {"cpu": 101}, {"memory": 1}, {"storage": -1}, 7])
def test_caps_out_of_bounds_change_nothing(params: object) -> None:
    @virtual
    async def run() -> None:
        async with page() as tab:
            assert (await tab.refusal("limits", params))["code"] == "ConfigError"
            assert tab.control.core.budget.limits.cpu == 100

    run()


@virtual
async def test_stop_ends_the_node_and_what_was_under_way() -> None:
    async with page() as tab:
        number = tab.start("generate", GREEDY | {"max_tokens": 400})
        await asyncio.sleep(0.2)
        stop = tab.start("stop")
        assert (await tab.end(stop))["value"] is True
        assert (await tab.end(number))["error"]["code"] == "Cancelled"
        await asyncio.sleep(1)
        assert tab.control.core.state == "stopped"


@virtual
async def test_a_method_that_there_is_none_of_is_refused() -> None:
    async with page() as tab:
        error = await tab.refusal("fly")
        assert (error["code"], error["message"]) == ("ConfigError", "no such method: fly")


# --- calls that are none ------------------------------------------------------------------

MALFORMED = {
    "nothing": ("", -1),
    "no json": ("{", -1),
    "no object": ("[]", -1),
    "no method": ('{"id": 901}', 901),
    "no id": ('{"method": "status"}', -1),
    "a name for an id": ('{"id": "x", "method": "status"}', -1),
    "nested": ('{"id": 902, "method": "status", "params": ' + "[" * 100_000, -1),
    "deep but whole": ("[" * 100_000 + "]" * 100_000, -1),
    "half a pair": ('{"id": 903, "method": "\ud800"}', 903),
    "too long": ('{"id": 904, "method": "' + "x" * 4_000_000 + '"}', -1),
}


@pytest.mark.parametrize(("text", "number"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_call_is_answered(text: str, number: int) -> None:
    @virtual
    async def run() -> None:
        async with page() as tab:
            tab.control.deliver(text)
            error = (await tab.end(number))["error"]
            assert error["code"] == "ConfigError"
            assert error["message"].startswith("a malformed call")
            assert (await tab.call("status"))["state"] == "ready"

    run()


@virtual
async def test_parameters_that_do_not_decode_are_answered() -> None:
    async with page() as tab:
        tab.control.deliver('{"id": 77, "method": "generate", "params": {"prompt": "\\ud800"}}')
        assert (await tab.end(77))["error"]["code"] == "ConfigError"


@virtual
async def test_a_call_stopped_before_it_began_is_answered_too() -> None:
    async with page() as tab:
        number = tab.start("generate", GREEDY)
        tab.control.stop()
        assert (await tab.end(number))["error"]["code"] == "Cancelled"


def test_a_bug_of_ours_is_told_to_the_caller_and_still_raised() -> None:
    @virtual
    async def run() -> None:
        async with page() as tab:
            tab.control.core.budget.cpu = None  # type: ignore[assignment]
            assert (await tab.refusal("generate", GREEDY))["code"] == "LocalError"

    with pytest.raises(RuntimeError, match="never retrieved"):
        run()


@virtual
async def test_a_number_in_use_is_refused_and_the_first_call_goes_on() -> None:
    async with page() as tab:
        tab.start("generate", GREEDY, number=50)
        tab.start("status", number=50)
        assert (await tab.end(50))["error"]["code"] == "ConfigError"
        await asyncio.sleep(2)
        ends = [one["event"] for one in tab.replies(50) if one["event"] != "chunk"]
        assert ends == ["error", "done"]


# --- a start that fails -------------------------------------------------------------------


@virtual
async def test_a_node_that_cannot_start_says_why_and_goes_on_saying_it() -> None:
    async with page(ready=False, model="gpt-17") as tab:
        assert (await tab.refusal("generate", GREEDY))["code"] == "UnknownModel"
        assert [one["code"] for one in tab.notices("failed")] == ["UnknownModel"]
        assert (await tab.call("status"))["model"] is None


@virtual
async def test_stopped_while_it_loads_it_ends_soon() -> None:
    async with page(ready=False) as tab:
        tab.net.network.link("ada", "https:").bandwidth = 10.0
        await asyncio.sleep(1)
        begun = asyncio.get_running_loop().time()
        tab.control.stop()
    assert asyncio.get_running_loop().time() - begun < 5


def test_a_tag_s_configuration_is_read() -> None:
    tag = {"attributes": {"max-blocks": "3"}, "site": "https://a.test", "cdn": "https://b.test"}
    assert config_of(json.dumps(tag)) == NodeConfig(
        relays=("wss://b.test/mesh",), sources=("https://b.test/models/",), max_blocks=3
    )
    with pytest.raises(ConfigError, match="max-blocks"):
        config_of(json.dumps(tag | {"attributes": {"max-blocks": "many"}}))
