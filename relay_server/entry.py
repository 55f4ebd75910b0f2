"""How a node enters: it signs the relay's nonce together with the name it dialled."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pyodide_node.wire.messages import Hello, hello_bytes
from relay_server.refusal import Refusal

__all__ = ["check_hello", "verify"]


def verify(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether this is an Ed25519 signature (RFC 8032) of `data`; false for any bad input."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_hello(hello: Hello, nonce: bytes, host: str, audiences: frozenset[str]) -> None:
    """Raise Refusal unless the node proves its key, to this relay and for this connection.

    `host` is the request's Host header; it counts only where the operator names no audiences.
    """
    name = _without_default_port(hello.audience.lower())
    known = {_without_default_port(known) for known in audiences or {host}}
    # An operator's name without a port stands for all of them: proxies listen on many.
    if name not in known and not (audiences and name.rpartition(":")[0] in known):
        raise Refusal(
            "WrongAudience",
            "this node believes it speaks to another relay; "
            "dial this one by a name that its operator gave it (--audience)",
        )
    if not verify(hello.public_key, hello.signature, hello_bytes(nonce, hello.audience)):
        raise Refusal("BadSignature", "the challenge is not signed by the key that it names")


def _without_default_port(name: str) -> str:
    """Browsers leave these out of the Host header even where the URL has them."""
    return name.removesuffix(":80").removesuffix(":443")
