"""The worker script: boots in both kinds of worker, restarts, refuses what is tampered with."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.runtime.conftest import ROOT
from tests.runtime.frame import Frame
from tests.runtime.server import Site

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

HAS_SNAPSHOT = "async () => (await (await caches.open('kwaainet-snapshot')).keys()).length > 0"

# Changes one byte of everything in a cache.
DAMAGE = """async (name) => {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) {
        const bytes = new Uint8Array(await (await cache.match(request)).arrayBuffer());
        bytes[bytes.length >> 1] ^= 1;
        await cache.put(request, new Response(bytes));
    }
}"""


@pytest.fixture
def frame(page: Page, site: Site) -> Frame:
    return Frame(page, site)


@pytest.mark.parametrize("hosting", ["service-worker", "dedicated-worker"])
def test_a_node_starts_and_answers(hosting: str, frame: Frame) -> None:
    client = frame.boot(hosting)
    started = frame.started(client)
    assert started["event"] == "worker", started
    assert started["value"]["hosting"] == hosting
    assert not started["value"]["fromSnapshot"]
    said = frame.said(client)
    assert said[0] == {"type": "alive", "boot": started["value"]["boot"]}
    shares = [one["value"]["share"] for one in said
              if one.get("event") == "progress" and one["value"]["stage"] == "runtime"]  # fmt: skip
    assert shares == sorted(shares)
    assert shares[-1] == 1
    status = frame.ask(client, 1, "status")
    assert status["event"] == "done"
    assert status["value"]["host"] == "tab"


def test_a_killed_service_worker_comes_back_from_its_snapshot(
    frame: Frame, context: BrowserContext, site: Site
) -> None:
    client = frame.boot("service-worker")
    before = frame.started(client)["value"]
    first = frame.ask(client, 1, "status")["value"]["peer"]
    devtools = context.new_cdp_session(frame.page)
    devtools.send("ServiceWorker.enable")
    devtools.send("ServiceWorker.stopAllWorkers")
    assert frame.heartbeat(client)["boot"] != before["boot"]
    asked = len(site.requests)
    again = frame.boot("service-worker")
    after = frame.started(again)["value"]
    assert after["fromSnapshot"]
    assert after["boot"] != before["boot"]
    # The engine may have been under way when the worker was killed; Python was not.
    assert not [path for path in site.requests[asked:] if "/runtime/" in path and "ort" not in path]
    assert frame.ask(again, 1, "status")["value"]["peer"] == first


def test_a_damaged_snapshot_means_a_cold_start(
    frame: Frame, context: BrowserContext, site: Site
) -> None:
    frame.started(frame.boot("dedicated-worker"))
    frame.page.wait_for_function(HAS_SNAPSHOT)
    frame.page.evaluate(DAMAGE, "kwaainet-snapshot")
    again = frame.started(frame.boot("dedicated-worker"))
    assert again["event"] == "worker"
    assert not again["value"]["fromSnapshot"]


def test_a_tampered_file_is_refused_aloud(frame: Frame, site: Site) -> None:
    path = runtime_file("stdlib")
    genuine = site.content(path)
    assert genuine is not None
    site.instead[path] = genuine[:-1] + bytes([genuine[-1] ^ 1])
    failed = frame.started(client := frame.boot("dedicated-worker"))
    assert failed["event"] == "failed"
    assert failed["value"]["code"] == "IntegrityError"
    assert path.rpartition("/")[2] in failed["value"]["message"]
    assert site.requests.count(path) == 2  # once more, past all caches
    assert frame.ask(client, 1, "status")["error"]["code"] == "IntegrityError"
    # The other files are well, and kept.
    del site.instead[path]
    asked = len(site.requests)
    assert frame.started(frame.boot("dedicated-worker"))["event"] == "worker"
    again = {one for one in site.requests[asked:] if "/runtime/" in one and "ort" not in one}
    assert again <= {path}


def test_a_damaged_copy_in_the_cache_is_fetched_again(frame: Frame, site: Site) -> None:
    assert frame.started(frame.boot("dedicated-worker"))["event"] == "worker"
    frame.page.wait_for_function(HAS_SNAPSHOT)
    frame.page.evaluate(DAMAGE, "kwaainet-runtime")
    assert frame.started(frame.boot("dedicated-worker"))["event"] == "worker"


@pytest.mark.parametrize("what", ["caches", "indexedDB", "both"])
def test_denied_storage_is_no_obstacle(what: str, frame: Frame, site: Site) -> None:
    names = ["caches", "indexedDB"] if what == "both" else [what]
    worker = site.content("/worker.js")
    assert worker is not None
    denied = "".join(
        f"Object.defineProperty(self,'{name}',{{get(){{throw new DOMException('no','SecurityError')"
        "}});"
        for name in names
    )
    site.instead["/denied.js"] = denied.encode() + worker
    for _ in range(2):
        started = frame.started(frame.boot("dedicated-worker", script="/denied.js"))
        assert started["event"] == "worker", started
        assert what == "indexedDB" or not started["value"]["fromSnapshot"]


def test_a_first_party_blob_loads_from_the_cdn(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.goto(f"{site.other_origin}/blank")
    frame = Frame(page, site)
    source = f"{site.origin}/worker.js"
    blob = page.evaluate("async (u) => URL.createObjectURL(await (await fetch(u)).blob())", source)
    started = frame.started(frame.boot("dedicated-worker", script=blob))
    assert started["event"] == "worker", started


def test_a_policy_without_wasm_is_named(frame: Frame, site: Site) -> None:
    site.headers["/worker.js"] = {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'"
    }
    failed = frame.started(frame.boot("dedicated-worker"))
    assert failed["value"]["code"] == "EngineError"
    assert "wasm-unsafe-eval" in failed["value"]["message"]


def test_a_page_of_another_version_is_told_to_reload(frame: Frame) -> None:
    failed = frame.started(frame.boot("dedicated-worker", version=99))
    assert failed["event"] == "failed"
    assert "reload" in failed["value"]["message"]


def test_a_setting_that_does_not_parse_is_reported(frame: Frame) -> None:
    attributes = {"engine": "steam"}
    failed = frame.started(frame.boot("dedicated-worker", attributes=attributes))
    assert failed["value"]["code"] == "ConfigError"
    assert "steam" in failed["value"]["message"]
    assert "Traceback" not in json.dumps(failed)


def test_a_heartbeat_starts_nothing(frame: Frame, context: BrowserContext, site: Site) -> None:
    client = frame.boot("service-worker")
    frame.started(client)
    devtools = context.new_cdp_session(frame.page)
    devtools.send("ServiceWorker.enable")
    devtools.send("ServiceWorker.stopAllWorkers")
    first = frame.heartbeat(client)
    asked = len(site.requests)
    assert frame.heartbeat(client) == first
    assert not [path for path in site.requests[asked:] if "/runtime/" in path]


def runtime_file(name: str) -> str:
    """Its path in this build; files of former ones lie beside it for a day."""
    table = json.loads((ROOT / "dist/cache/runtime-table.json").read_text())
    return f"/runtime/{table[name]['file']}"
