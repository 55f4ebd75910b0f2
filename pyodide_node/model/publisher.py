"""Who published a model: a signature over its id, beside the manifest.

It says who vouches for the weights; what they are, the id says already. Signed records
(wire/records.py) expire within minutes and would not do: a model is published once.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import ManifestError, ProtocolError
from pyodide_node.hosts.base import Keys
from pyodide_node.mesh.peer import did_key, key_of_did

__all__ = ["Publication", "check_publisher", "sign_manifest"]

_CONTEXT = b"kwaainet/model/1\0"


class Publication(Struct, frozen=True):
    """What `manifest.sig` holds, as JSON."""

    publisher: Annotated[str, Meta(max_length=128)]
    """did:key of an Ed25519 key."""
    signature: Annotated[str, Meta(pattern=r"\A[0-9a-f]{128}\Z")]


async def sign_manifest(keys: Keys, model_id: str) -> bytes:
    """The content of `manifest.sig`, by which the owner of `keys` vouches for the model."""
    signature = await keys.sign(_signed_part(model_id))
    return msgspec.json.encode(Publication(did_key(keys.public_key), signature.hex()))


async def check_publisher(
    keys: Keys, model_id: str, publication: Publication | None, pinned: str
) -> None:
    """A signature that is there must hold, and be of `pinned` (a did:key) if that is named.

    Raises ManifestError.
    """
    if pinned and (publication is None or publication.publisher != pinned):
        raise ManifestError(
            f"the model is not signed by {pinned}; take it from a source that has the signature,"
            " or remove data-publisher",
            model=model_id,
        )
    if publication is None:
        return
    try:
        key = key_of_did(publication.publisher)
    except ProtocolError:
        raise ManifestError("the model's publisher is no did:key", model=model_id) from None
    signature = bytes.fromhex(publication.signature)
    if not await keys.verify(key, signature, _signed_part(model_id)):
        raise ManifestError("the model's signature is not its publisher's", model=model_id)


def _signed_part(model_id: str) -> bytes:
    return _CONTEXT + bytes.fromhex(model_id)
