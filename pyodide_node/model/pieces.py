"""A file's pieces: what is checked by hash while the file is on its way.

The list of a file's pieces is the root block of an IPFS UnixFS file (dag-pb, one level, raw leaves
of `PIECE` bytes), so that the same hash names the file on IPFS. Since all of its form follows from
the file's size, it is never parsed: the hashes are taken from where they must lie, and the root
made of them again must be the one that was read.

Sources: https://ipld.io/specs/codecs/dag-pb/spec/ and https://github.com/ipfs/specs (UnixFS).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence

from pyodide_node.errors import IntegrityError
from pyodide_node.model.manifest import PIECE, Blob

__all__ = ["block_cid", "cid", "dag_root", "describe", "piece_sizes", "pieces_of", "root_bytes"]

_RAW = b"\x01\x55\x12\x20"
"""CIDv1, raw, sha2-256 of 32 bytes."""
_DAG_PB = b"\x01\x70\x12\x20"
_FILE = b"\x08\x02"
_DIGEST = 32


def piece_sizes(size: int) -> list[int]:
    """Bytes of each piece of a file of `size` bytes."""
    return [min(PIECE, size - start) for start in range(0, size, PIECE)]


def dag_root(digests: Sequence[bytes], size: int) -> bytes:
    """The dag-pb block of a file of `size` bytes whose pieces have these sha256 digests."""
    sizes = piece_sizes(size)
    links = b"".join(_link(digest, each) for digest, each in zip(digests, sizes, strict=True))
    data = _FILE + b"\x18" + _varint(size) + b"".join(b"\x20" + _varint(each) for each in sizes)
    return links + b"\x0a" + _varint(len(data)) + data


def describe(data: bytes) -> tuple[Blob, bytes | None]:
    """A file's blob, and the root block to keep beside it if it has more than one piece."""
    sha256 = hashlib.sha256(data).hexdigest()
    if len(data) <= PIECE:
        return Blob(sha256=sha256, bytes=len(data)), None
    starts = range(0, len(data), PIECE)
    root = dag_root([hashlib.sha256(data[at : at + PIECE]).digest() for at in starts], len(data))
    return Blob(sha256=sha256, bytes=len(data), dag=hashlib.sha256(root).hexdigest()), root


def root_bytes(size: int) -> int:
    """The length of `dag_root` for a file of `size` bytes."""
    sizes = piece_sizes(size)
    return len(dag_root([bytes(_DIGEST)] * len(sizes), size))


def pieces_of(root: bytes, blob: Blob) -> list[bytes]:
    """The sha256 digests of the blob's pieces, of its root block.

    Raises IntegrityError for a block that is not the root that the blob names.
    """
    digests = list(_digests(root, blob.bytes))
    if hashlib.sha256(root).hexdigest() != blob.dag or dag_root(digests, blob.bytes) != root:
        raise IntegrityError("this is not the list of the file's pieces", sha256=blob.sha256)
    return digests


def cid(blob: Blob) -> str:
    """The file's name on IPFS: a CIDv1 in base32."""
    return block_cid(blob.dag or blob.sha256, root=blob.dag is not None)


def block_cid(sha256: str, root: bool = False) -> str:
    """The name on IPFS of one block: a piece, or the root that lists them."""
    named = (_DAG_PB if root else _RAW) + bytes.fromhex(sha256)
    return "b" + base64.b32encode(named).decode().lower().rstrip("=")


def _digests(root: bytes, size: int) -> Iterator[bytes]:
    at = 0
    for each in piece_sizes(size):
        end = at + len(_link(bytes(_DIGEST), each))
        # The digest lies behind two tags with their lengths, and the CID's own prefix.
        yield root[at + 4 + len(_RAW) : at + 4 + len(_RAW) + _DIGEST].ljust(_DIGEST, b"\0")
        at = end


def _link(digest: bytes, size: int) -> bytes:
    named = _RAW + digest
    body = b"\x0a" + _varint(len(named)) + named + b"\x12\x00\x18" + _varint(size)
    return b"\x12" + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
