"""The relay as an object: where it listens, and what happens when it cannot."""

from __future__ import annotations

import datetime
import logging
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from pyodide_node.errors import ConfigError
from relay_server import Relay, RelaySettings
from relay_server.settings import default_cdn
from tests.relay_server.client import Client
from tests.relay_server.http import get


async def test_port_0_is_a_free_one_and_told(relay: Relay) -> None:
    assert relay.port > 0
    assert relay.url == f"http://127.0.0.1:{relay.port}"
    assert relay.mesh_url == f"ws://127.0.0.1:{relay.port}/mesh"


async def test_several_relays_run_in_one_loop(relay: Relay) -> None:
    async with Relay(RelaySettings(port=0, stun=False)) as other:
        assert other.port != relay.port
        assert (await get(other.url, "/healthz")).status == 200
    assert (await get(relay.url, "/healthz")).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_relay_for_everybody_is_named_as_seen_from_here(host: str) -> None:
    async with Relay(RelaySettings(host=host, port=0, stun=False)) as relay:
        assert relay.url == f"http://localhost:{relay.port}"
        assert (await get(relay.url, "/healthz")).status == 200


async def test_a_taken_port_is_said_so(relay: Relay) -> None:
    with pytest.raises(ConfigError, match="choose another --port"):
        await Relay(RelaySettings(port=relay.port, stun=False)).__aenter__()


async def test_an_address_of_another_machine_is_said_so() -> None:
    for host in ("192.0.2.1", "not-a-name.invalid"):
        with pytest.raises(ConfigError, match=host):
            await Relay(RelaySettings(host=host, port=0, stun=False)).__aenter__()


async def test_answers_carry_the_date_and_no_version(relay: Relay) -> None:
    headers = (await get(relay.url, "/healthz")).headers
    assert "date" in headers
    assert "server" not in headers


async def test_no_address_is_logged_however_much_else_is(relay: Relay) -> None:
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.name.startswith("websockets"):  # the client's own
                lines.append(record.getMessage())

    keeper, root = Keeper(), logging.getLogger()
    level = root.level
    root.addHandler(keeper)
    root.setLevel(logging.DEBUG)
    try:
        async with Client(relay.mesh_url) as node:
            await node.socket.send("junk")
            await node.refused()
        await get(relay.url, "/healthz")
        await get(relay.url, "/absent")
    finally:
        root.setLevel(level)
        root.removeHandler(keeper)
    assert not [line for line in lines if "127.0.0.1" in line]


async def test_tls_serves_pages_and_mesh(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    settings = RelaySettings(host="localhost", port=0, stun=False, tls_cert=cert, tls_key=key)
    context = ssl.create_default_context(cafile=str(cert))
    async with Relay(settings) as relay:
        assert relay.url.startswith("https://localhost:")
        assert relay.mesh_url.startswith("wss://localhost:")
        assert (await get(relay.url, "/healthz", context=context)).status == 200
        async with (
            Client(relay.mesh_url, ssl=context) as a,
            Client(relay.mesh_url, ssl=context) as b,
        ):
            await b.hears(a)
            await a.forward(b.key, bytes(100_000))
            assert await b.forwarded() == (a.key, bytes(100_000))


def test_half_of_tls_is_none() -> None:
    with pytest.raises(ConfigError, match="certificate and its key"):
        RelaySettings(tls_cert=Path("cert.pem"))


def test_files_that_came_along_are_found_or_not() -> None:
    found = default_cdn()
    assert found is None or found.is_dir()


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert_path, key_path
