"""The native host: CPython with aiortc, websockets, cryptography and ONNX Runtime."""

from .clock import NativeClock
from .engine import NativeEngine
from .host import NativeHost, native_host
from .keys import load_keys
from .store import NativeStore
from .transport import NativeTransport
from .unsplit import UnsplitModel

__all__ = [
    "NativeClock",
    "NativeEngine",
    "NativeHost",
    "NativeStore",
    "NativeTransport",
    "UnsplitModel",
    "load_keys",
    "native_host",
]
