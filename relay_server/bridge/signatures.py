"""hivemind's rule for records with an owner: only who has the RSA key may write them.

A subkey with "[owner:ssh-rsa …]" in it is its owner's; the value then ends with
"[signature:…]", an RSA-PSS signature of the record without it.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from relay_server.bridge import limits
from relay_server.bridge.messages import Item
from relay_server.bridge.values import pack

__all__ = ["allowed"]

_OWNER: Final = re.compile(rb"\[owner:(.+?)\]")
_SIGNATURE: Final = re.compile(rb"\[signature:(.+?)\]")
_MARK: Final = b"[signature:"
_PADDING: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.MAX_LENGTH)


def allowed(item: Item) -> bool:
    """Whether nobody owns this record, or its owner signed it."""
    owners = {*_OWNER.findall(item.key), *_OWNER.findall(item.subkey)}
    if not owners:
        return True
    # One mark only: the pattern would look for the end of each of many.
    if len(owners) > 1 or len(item.value) > limits.SIGNED or item.value.count(_MARK) != 1:
        return False
    found = _SIGNATURE.search(item.value)
    if found is None:
        return False
    value = item.value[: found.start()] + item.value[found.end() :]
    try:
        key = load_ssh_public_key(owners.pop())
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        signature = base64.b64decode(found[1])
        signed = pack((item.key, item.subkey, value, item.expires))
        key.verify(signature, signed, _PADDING, hashes.SHA256())
    except (ValueError, binascii.Error, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
