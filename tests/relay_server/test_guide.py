"""docs/OPERATORS.md does what it says: its files are taken, its commands are run.

Paths of a real machine become those of the test; commands that install packages or need a running
systemd are not run.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cyclopts import App

from pyodide_node.errors import StoreError
from relay_server import Relay, RelaySettings
from relay_server.api.keys import ApiKeys
from relay_server.commands.relay import relay as relay_command
from relay_server.database import check_database
from relay_server.sources import sources
from relay_server.state import FILE, MIGRATIONS, State
from tests.relay_server.databases import Postgres

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE = (DOCS / "OPERATORS.md").read_text()


def printed(kind: str) -> list[str]:
    """The guide's blocks that stand under that comment."""
    found: list[str] = re.findall(rf"<!-- {kind} -->\n```\w+\n(.*?)```", GUIDE, re.DOTALL)
    assert found, kind
    return found


def shell(script: str, *, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def tool(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not on this machine")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Directories as on the machine of the guide."""
    for folder in ("etc/kwaainet", "etc/systemd/system", "var/lib/kwaainet-relay", "var/backups"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def moved(script: str, machine: Path) -> str:
    """Its paths below `machine`; nobody is asked for but this user."""
    script = re.sub(r"(?<![\w.])/(etc|var)/", rf"{machine}/\1/", script)
    script = re.sub(r"install -o \w+ -g \w+", "install", script)
    return re.sub(r"^(systemctl|chown) .*\n", "", script, flags=re.MULTILINE)


def settings_of(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RelaySettings:
    """What `kwaainet relay` makes of a settings file."""
    file = tmp_path / "config.toml"
    file.write_text(text)
    monkeypatch.setenv("KWAAINET_CONFIG", str(file))
    app = App(config=sources("relay"))
    app.default(relay_command)
    _, bound, _ = app.parse_args([], exit_on_error=False, print_error=False)
    found: RelaySettings = bound.arguments["settings"]
    return found


def test_the_settings_file_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = printed("settings")
    found = settings_of(text, tmp_path, monkeypatch)
    assert found.audiences == {"relay.example.org"}
    assert found.trusted_proxies == {"127.0.0.1"}
    assert found.state == Path("/var/lib/kwaainet-relay")
    assert (found.stun, found.log_format) == (False, "json")
    for text in printed("database"):
        check_database(settings_of(text, tmp_path, monkeypatch).database)


def test_the_units_file_is_where_the_guide_copies_it_from(machine: Path) -> None:
    (script,) = printed("install")
    (machine / "etc/kwaainet/config.toml").touch()
    script = moved(script.replace("/opt/kwaainet/bin/python", sys.executable), machine)
    script = script.replace(f"chown root:kwaainet {machine}/etc/kwaainet/config.toml && ", "")
    shell(script)
    assert "ExecStart" in (machine / "etc/systemd/system/kwaainet-relay.service").read_text()


def test_commands_are_run_with_the_relays_settings(machine: Path) -> None:
    (text,) = printed("settings")
    (machine / "etc/kwaainet/config.toml").write_text(moved(text, machine))
    (script,) = printed("as the relay")
    script = moved(script, machine).replace("runuser -u kwaainet -- ", "")
    # No program of that name need be installed.
    script = script.replace("/opt/kwaainet/bin/kwaainet", f"{sys.executable} -m relay_server")
    said = shell(script)
    assert re.search(r"^kwaai-[0-9a-f]{12}-", said, re.MULTILINE)
    with State(machine / "var/lib/kwaainet-relay") as state:
        ((key, _),) = ApiKeys(state).list()
    assert (key.name, key.tokens_per_day, key.requests_per_minute) == ("ada", 200_000, 60)


async def test_the_checks_are_answered(relay: Relay) -> None:
    tool("curl")
    (script,) = printed("checks")

    said = await asyncio.to_thread(
        shell, script.replace("127.0.0.1:8080", f"127.0.0.1:{relay.port}")
    )
    assert said.startswith("ok\nok\n")
    assert '"models"' in said


def test_caddy_takes_the_guides_file(tmp_path: Path) -> None:
    tool("caddy")
    (text,) = printed("caddy")
    (tmp_path / "Caddyfile").write_text(text)
    shell(f"caddy adapt --config {tmp_path}/Caddyfile --validate")


class Writer:
    """A relay that goes on counting while it is backed up."""

    def __init__(self, state: State) -> None:
        self._keys = ApiKeys(state)
        self.key = self._keys.add("ada")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.requests = 0

    def __enter__(self) -> Writer:
        self._thread.start()
        while self.requests < 3:
            time.sleep(0.001)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        known = self._keys.find(self.key)
        assert known is not None
        while not self._stop.is_set():
            self._keys.admit(known, 1)
            self.requests += 1


def found_again(state: State, writer: Writer, least: int) -> None:
    """The key is there, with what it had used when the backup was begun or later."""
    keys = ApiKeys(state)
    ((_, used),) = keys.list()
    assert least <= used.requests <= writer.requests
    known = keys.find(writer.key)
    assert known is not None
    keys.admit(known, 1)


def test_a_file_is_saved_while_it_is_used_and_put_back(machine: Path) -> None:
    tool("sqlite3")
    (save,), (restore,) = printed("sqlite backup"), printed("sqlite restore")
    folder = machine / "var/lib/kwaainet-relay"
    with State(folder) as state, Writer(state) as writer:
        least = writer.requests
        shell(moved(save, machine))
    (folder / FILE).write_bytes(b"a broken disk")
    shell(moved(restore, machine))
    with State(folder) as state:
        found_again(state, writer, least)


def test_a_database_is_saved_while_it_is_used_and_put_back(
    machine: Path, postgres: Postgres
) -> None:
    tool("pg_dump")
    (save,), (restore,) = printed("postgres backup"), printed("postgres restore")
    url, other = postgres.new(), postgres.new()
    with State(machine, database=url) as state, Writer(state) as writer:
        least = writer.requests
        shell(moved(save, machine), env={"DATABASE": url})
    for database in (url, other):  # over what is there, and into an empty one
        shell(moved(restore, machine), env={"DATABASE": database})
        with State(machine, database=database) as state:
            found_again(state, writer, least)


def test_an_older_release_says_what_the_guide_says(machine: Path) -> None:
    newer = [*MIGRATIONS, "CREATE TABLE more (n BIGINT);"]
    State(machine, newer).close()
    with pytest.raises(StoreError) as caught:
        State(machine).close()
    told = re.search(r"`… (is of version .*?)`", GUIDE, re.DOTALL)
    assert told is not None
    words = " ".join(told[1].split())
    versions = f"{len(newer)} and this relay knows {len(MIGRATIONS)}"
    assert re.sub(r"\d+ and this relay knows \d+", versions, words) in str(caught.value)


def test_its_links_lead_somewhere() -> None:
    for file, part in re.findall(r"\]\(([\w.]+\.md)(?:#([\w-]+))?\)", GUIDE):
        page = DOCS / file
        assert page.is_file(), file
        heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
        names = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
        assert not part or part in names, (file, part)
