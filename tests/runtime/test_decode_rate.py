"""The whole way from Python through the engine and back costs little beside the engine itself."""

from __future__ import annotations

import pytest

from tests.runtime.conftest import InTab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def test_decoding_is_nearly_as_fast_as_the_bare_engine(in_tab: InTab) -> None:
    got = in_tab("decode.py", engine="wasm", count=128, rounds=12)
    # The best of rounds that took turns: others' load can only make a round slower.
    ours, bare = min(got["ours"]), min(got["bare"])
    print(f"a step: {ours:.2f} ms in the node, {bare:.2f} ms bare: {bare / ours:.2f}")
    assert bare / ours > 0.75
