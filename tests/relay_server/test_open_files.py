"""A relay takes as many connections as its process may have files open."""

from __future__ import annotations

import resource
import sys
from subprocess import run

import pytest

from relay_server.open_files import raise_open_files

COUNT = """
import resource
from relay_server.open_files import raise_open_files
print(raise_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_limit_is_raised_as_far_as_it_may_be() -> None:
    told = run([sys.executable, "-c", COUNT], preexec_fn=limited, capture_output=True, check=True)
    assert told.stdout.split() == [b"300", b"300"]
    assert raise_open_files() >= 300
