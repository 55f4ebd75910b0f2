"""Settings as people write them: read exactly, or refused with what to write instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.config import NodeConfig, ResourceLimits, models_url, relay_url
from pyodide_node.errors import ConfigError

CDN = "https://cdn.example.org"


def of(**attributes: str) -> NodeConfig:
    """From a tag's attributes; underscores stand for dashes."""
    return NodeConfig.from_attributes(
        {name.replace("_", "-"): value for name, value in attributes.items()}, CDN
    )


def test_a_bare_tag_serves_the_first_model_of_its_own_origin() -> None:
    assert of() == NodeConfig(
        relays=("wss://cdn.example.org/mesh",), sources=("https://cdn.example.org/models/",)
    )


def test_a_full_tag_is_read_as_written() -> None:
    config = of(
        relay="relay.example.net",
        model=" kwaai-docs ",
        services="compute, storage",
        max_resources="cpu:50, memory:2048",
        engine="wasm",
        path="relay",
        max_blocks="4",
        region="eu-west",
        theme="dark",
    )
    assert config == NodeConfig(
        relays=("wss://relay.example.net/mesh",),
        sources=("https://cdn.example.org/models/",),
        model="kwaai-docs",
        services=frozenset({"compute", "storage"}),
        limits=ResourceLimits(cpu=50, memory=2048, storage=5000),
        engine="wasm",
        path="relay",
        max_blocks=4,
        region="eu-west",
    )


def test_more_places_to_fetch_from_are_read_as_written() -> None:
    did = "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH"
    config = of(
        mirrors="https://a.example/models, http://b.example/m/",
        ipfs_gateways="https://ipfs.example",
        publisher=did,
        upload="8",
    )
    assert config.sources[1:] == ("https://a.example/models/", "http://b.example/m/")
    assert config.gateways == ("https://ipfs.example/",)
    assert config.publisher == did
    assert config.upload == 8.0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mirrors", "file:///etc/"),
        ("mirrors", "/etc"),
        ("mirrors", "https://"),
        ("ipfs_gateways", "ipfs.example"),
        ("publisher", "did:web:example"),
        ("publisher", "did:key:z6Mk"),
        ("upload", "-1"),
        ("upload", "fast"),
    ],
)
def test_places_to_fetch_from_that_make_no_sense_are_refused(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=setting.replace("_", "-")):
        of(**{setting: value})


def test_empty_attributes_are_as_none() -> None:
    empty = of(relay="", model="", max_resources="", engine="", path=" ", max_blocks=" ", region="")
    assert empty == of()


def test_no_services_at_all_is_an_asker_only() -> None:
    assert of(services="").services == frozenset()


def test_a_region_is_cut_to_what_an_announcement_carries() -> None:
    assert len(of(region="x" * 50).region) == 32


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("cpu:900", "cpu must be a number from 1 to 100"),
        ("cpu:0", "cpu must be a number from 1 to 100"),
        ("cpu:-5", "cpu must be a number from 1 to 100"),
        ("cpu:20.5", "cpu must be a number from 1 to 100"),
        ("cpu", "cpu must be a number from 1 to 100"),
        ("cpu:20:30", "cpu must be a number from 1 to 100"),
        ("cpu:٣", "cpu must be a number from 1 to 100"),
        ("cpu:" + "9" * 5000, "cpu must be a number from 1 to 100"),
        ("memory:63", "memory must be a number from 64 to 1048576"),
        ("memory:1GB", "memory must be a number from 64 to 1048576"),
        ("storage:9999999", "storage must be a number from 0 to 1048576"),
        ("gpu:20", "'gpu' is not one of cpu, memory, storage"),
        ("cpu:20,cpu:30", "'cpu' is not one of cpu, memory, storage, each once"),
        ("20", "'20' is not one of cpu, memory, storage"),
    ],
)
def test_a_cap_that_does_not_parse_says_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(max_resources=text)
    assert str(caught.value).startswith('max-resources="')
    assert hint in str(caught.value)
    assert caught.value.data["setting"] == "max-resources"


@pytest.mark.parametrize(
    ("setting", "value", "hint"),
    [
        ("engine", "cuda", "write one of auto, webgpu, wasm, wasm-int8, wasm-int4"),
        ("path", "tcp", "write one of auto, webrtc, relay"),
        ("services", "compute,mining", "'mining' is not one of compute, storage"),
        ("max-blocks", "0", "write a number from 1 to 1024"),
        ("max-blocks", "1025", "write a number from 1 to 1024"),
        ("max-blocks", "²", "write a number from 1 to 1024"),
        ("max-blocks", "9" * 5000, "write a number from 1 to 1024"),
        ("relay", "ftp://relay.example.org", "write it as https://relay.example.org"),
        ("relay", "https://", "write it as https://relay.example.org"),
        ("relay", "https://[::1", "write it as https://relay.example.org"),
        ("relay", "https://relay.example.org:port", "write it as https://relay.example.org"),
    ],
)
def test_a_setting_that_does_not_parse_is_named_with_what_to_write(
    setting: str, value: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        NodeConfig.from_attributes({setting: value}, CDN)
    assert caught.value.data["setting"] == setting
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 300


@given(text=st.text(max_size=40))
def test_any_text_parses_or_is_a_config_error(text: str) -> None:
    for setting in ("max-resources", "max-blocks", "relay", "services", "engine", "path"):
        try:
            NodeConfig.from_attributes({setting: text}, CDN)
        except ConfigError as error:
            assert error.data["setting"] == setting  # noqa: PT017 - either is right


@given(cpu=st.integers(1, 100), memory=st.integers(64, 1 << 20), storage=st.integers(0, 1 << 20))
def test_every_cap_within_bounds_is_read(cpu: int, memory: int, storage: int) -> None:
    text = f"storage:{storage}, cpu : {cpu},memory:{memory},"
    assert ResourceLimits.parse(text) == ResourceLimits(cpu=cpu, memory=memory, storage=storage)


@pytest.mark.parametrize(
    ("address", "socket", "models"),
    [
        ("relay.test", "wss://relay.test/mesh", "https://relay.test/models/"),
        ("https://relay.test/", "wss://relay.test/mesh", "https://relay.test/models/"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/mesh", "http://127.0.0.1:8080/models/"),
        ("wss://relay.test/other?x=1", "wss://relay.test/other", "https://relay.test/models/"),
    ],
)
def test_a_relay_is_named_by_its_origin_or_in_full(address: str, socket: str, models: str) -> None:
    assert relay_url(address) == socket
    assert models_url(address) == models
