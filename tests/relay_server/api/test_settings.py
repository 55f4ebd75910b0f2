"""Settings that make no sense are refused where they are made."""

from __future__ import annotations

import pytest

from pyodide_node.errors import ConfigError
from relay_server import RelaySettings


@pytest.mark.parametrize("name", ["max_tokens", "max_answers", "answers_per_key", "max_loaded"])
def test_limits_allow_something(name: str) -> None:
    with pytest.raises(ConfigError, match=f"api_{name}"):
        RelaySettings(**{f"api_{name}": 0})
