"""A native node of 1 GB asks a model of 128k tokens: measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pyodide_node.budget import MEGABYTE
from pyodide_node.hosts.base import EngineName
from pyodide_node.model.ends import EndsFootprint
from pyodide_node.model.plan import plan
from tests.wide_model import LLAMA_8B_ENDS, embedded_rows, make_wide_model, native_head

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

CAP = 1024
ENGINE: EngineName = "onnxruntime"
IDS = [0, 77_777, 128_255]

ASK = """
import asyncio, json, sys
from functools import partial
from pathlib import Path
from pyodide_node.budget import Budget
from pyodide_node.config import ResourceLimits
from pyodide_node.delivery.catalog import Model
from pyodide_node.delivery.delivery import Delivery
from pyodide_node.delivery.storage import Storage
from pyodide_node.hosts.native import native_host
from pyodide_node.inference.own_ends import OwnEnds, StoredEmbedding
from pyodide_node.model.manifest import decode_manifest

def own(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return 1024 * (int(fields[name].split()[0]) - int(fields["RssFile"].split()[0]))

async def main(state, folder, memory):
    host = await native_host(Path(state))
    manifest = decode_manifest(Path(folder, "manifest.json").read_bytes())
    model = Model(manifest, manifest.model_id, (Path(folder, "blobs").as_uri() + "/",))
    limits = ResourceLimits(cpu=100, memory=memory, storage=4000)
    budget = Budget(host.clock, "native", limits)
    storage = Storage(host, budget, lambda: None)
    await storage.open()
    read, embedding = Delivery(host, model, storage), manifest.embed.sha256
    stored = StoredEmbedding(partial(read.keep, embedding), partial(read.piece, embedding))
    ends = await OwnEnds(host, budget, manifest, read, stored).get()
    loaded = own("VmRSS")
    hidden = await ends.embed(json.loads(sys.argv[4]))
    best = await ends.head(hidden[: manifest.hidden_bytes(1)], 1.0, 4)
    print(json.dumps([own("VmHWM"), loaded, hidden.hex(), list(best.ids)]))
    await ends.close()
    host.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def test_a_node_of_one_gigabyte_asks_a_model_with_128k_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    manifest = make_wide_model(folder, LLAMA_8B_ENDS)
    planned = plan(manifest, [ENGINE], "native", CAP * MEGABYTE).ends
    assert planned == EndsFootprint(manifest, ENGINE, stored=True)
    command = [sys.executable, "-c", ASK, tmp_path / "state", folder, str(CAP), json.dumps(IDS)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak, loaded, hidden, best = json.loads(told)
    print(
        f"embedding and head {planned.held / 1e6:.0f} MB, {planned.loading / 1e6:.0f} MB while they"
        f" load; peak {peak / 1e6:.0f} MB, afterwards {loaded / 1e6:.0f} MB"
    )
    assert peak <= CAP * MEGABYTE
    rows = embedded_rows(folder, manifest, IDS)
    assert bytes.fromhex(hidden) == rows.tobytes()
    assert best == native_head(folder, manifest, rows[:1])[0]
