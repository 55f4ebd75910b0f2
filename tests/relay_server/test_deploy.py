"""The files that come along for operators: taken by their tools, and true to the relay."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from relay_server.settings import RelaySettings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "relay_server" / "deploy"
UNIT = DEPLOY / "kwaainet-relay.service"
EXPOSURE = 1.5
"""Of ten, by `systemd-analyze security`; what is left is mostly the network that a relay needs."""


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on this machine")
    return found


# --- systemd --------------------------------------------------------------------------------


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    unit = tmp_path / UNIT.name  # the program that it runs need not be here
    unit.write_text(UNIT.read_text().replace("/opt/kwaainet/bin/kwaainet", sys.executable))
    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if UNIT.stem in line]
    assert (done.returncode, said) == (0, [])


def test_systemd_finds_the_unit_confined() -> None:
    done = subprocess.run(
        [
            tool("systemd-analyze"),
            *("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE * 10:.0f}", UNIT),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd is too old for it")
    found = re.search(r"exposure level for .*: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE
    assert done.returncode == 0


def test_the_unit_gives_files_for_all_connections() -> None:
    found = re.search(r"^LimitNOFILE=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    settings = RelaySettings()
    assert int(found[1]) > settings.max_connections + settings.max_http


# --- containers -----------------------------------------------------------------------------


def instructions() -> list[dict[str, Any]]:
    parser = DockerfileParser(fileobj=io.BytesIO((DEPLOY / "Dockerfile").read_bytes()))
    return [one for one in parser.structure if one["instruction"] != "COMMENT"]


def values(name: str) -> list[str]:
    return [one["value"] for one in instructions() if one["instruction"] == name]


def test_the_container_is_built_in_stages_on_pinned_bases() -> None:
    bases = [re.fullmatch(r"([\w/]+):(\S+) AS (\w+)", value) for value in values("FROM")]
    assert len(bases) == 2
    for base in bases:
        assert base is not None
        assert re.match(r"\d+\.\d+\.\d+-", base[2])
    stages = {base[3] for base in bases if base is not None}
    for copy in values("COPY"):
        source = re.match(r"--from=(\w+)", copy)
        assert source is None or source[1] in stages
    assert not values("ADD")


def test_the_container_runs_as_nobody_in_particular() -> None:
    names = [one["instruction"] for one in instructions()]
    last_stage = names[len(names) - names[::-1].index("FROM") :]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    for name in ("USER", "VOLUME", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"):
        assert last_stage.count(name) == 1
    assert values("USER") == ["10001"]
    assert json.loads(values("ENTRYPOINT")[0]) == ["kwaainet"]
    assert json.loads(values("CMD")[0]) == ["relay"]


def test_the_health_check_asks_what_there_is() -> None:
    (check,) = values("HEALTHCHECK")
    words = json.loads(check[check.index("[") :])
    compile(words[-1], "healthcheck", "exec")
    assert "http://127.0.0.1:8080/healthz" in words[-1]
    assert "KWAAINET_RELAY_PORT=8080" in values("ENV")[0]


@pytest.mark.parametrize("name", ["compose.yml", "Dockerfile", "kwaainet-relay.service"])
def test_every_setting_that_is_named_is_one(name: str) -> None:
    fields = {field.name.upper() for field in dataclasses.fields(RelaySettings)}
    named = set(re.findall(r"KWAAINET_RELAY_([A-Z_]+)", (DEPLOY / name).read_text()))
    assert named <= fields
    assert named


def test_services_of_the_composition_are_pinned_and_confined() -> None:
    told = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    for name, service in told["services"].items():
        assert re.search(r":\d+\.\d+\.\d+", service["image"]) or "build" in service, name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            known = source in told["volumes"] or source in ("./Caddyfile", "./turnserver.conf")
            assert known, volume
    relay, caddy = told["services"]["relay"], told["services"]["caddy"]
    proxy = caddy["networks"]["inside"]["ipv4_address"]
    assert relay["environment"]["KWAAINET_RELAY_TRUSTED_PROXIES"] == proxy
    assert relay["cap_drop"] == ["ALL"]
    assert "ports" not in relay
    build = DEPLOY / relay["build"]["context"] / relay["build"]["dockerfile"]
    assert build.resolve() == (DEPLOY / "Dockerfile").resolve()


def test_caddy_takes_its_file() -> None:
    done = subprocess.run(
        [tool("caddy"), "adapt", "--config", DEPLOY / "Caddyfile", "--validate"],
        capture_output=True,
        text=True,
        env=os.environ | {"RELAY_NAME": "relay.example.org"},
    )
    assert done.returncode == 0, done.stderr
    assert "relay:8080" in done.stdout


def test_prometheus_is_told_where_the_alerts_are() -> None:
    told = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    for name in told["rule_files"]:
        assert (DEPLOY / name).is_file()
    (job,) = told["scrape_configs"]
    assert f'job="{job["job_name"]}"' in (DEPLOY / "alerts.yml").read_text()
