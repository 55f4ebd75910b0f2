"""A renewed certificate comes into use, and a broken one does not."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from relay_server import Relay, RelaySettings
from relay_server.certificate import Certificate
from tests.relay_server.client import PATIENCE, Client
from tests.relay_server.test_relay import self_signed


def renew(folder: Path, *, only: str = "") -> bytes:
    """Put a new pair, or one file of it, in place of the old; its DER."""
    made = folder / "new"
    made.mkdir(exist_ok=True)
    for path in self_signed(made):
        if not only or path.name == only:
            path.replace(folder / path.name)
    return ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())


async def shown(port: int) -> bytes:
    """The certificate of a new connection, DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    try:
        told: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return told
    finally:
        writer.close()
        await writer.wait_closed()


async def until(condition: Callable[[bytes], bool], port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition(await shown(port)):  # noqa: ASYNC110 - what others see
            await asyncio.sleep(0.01)


async def test_a_running_relay_takes_it_and_nobody_is_cut(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    trusted = ssl.create_default_context(cafile=str(cert))
    settings = RelaySettings(
        host="localhost", port=0, stun=False, tls_cert=cert, tls_key=key, sweep_every=0.02
    )
    async with Relay(settings) as relay, Client(relay.mesh_url, ssl=trusted) as node:
        first = await shown(relay.port)
        second = renew(tmp_path)
        assert second != first
        await until(lambda found: found == second, relay.port)
        await node.forward(node.key, b"still here")
        assert await node.forwarded() == (node.key, b"still here")


def test_what_cannot_be_used_is_told_once_and_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        events = [cast(Any, record.msg)["event"] for record in caplog.records]
        caplog.clear()
        return events

    caplog.set_level(logging.INFO, "kwaainet.relay")
    cert, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    certificate = Certificate(context, cert, key)
    certificate.look()
    renew(tmp_path, only="cert.pem")  # half of a pair
    certificate.look()
    certificate.look()
    assert told() == ["certificate_kept"]
    shutil.move(key, tmp_path / "away")
    certificate.look()
    shutil.move(tmp_path / "away", key)
    renew(tmp_path)
    certificate.look()
    assert told() == ["certificate_taken"]
    os.utime(cert)
    certificate.look()
    assert told() == ["certificate_taken"]
