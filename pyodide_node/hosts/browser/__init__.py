"""The host in a tab: the ports over loader/worker/bridge.ts. Only this package imports pyodide.

The worker calls `start` once for a node's life. Bytes go to JavaScript as buffers and come back
as ArrayBuffers; weights stay in JavaScript all the time. A JavaScript error whose name is a class
of `pyodide_node.errors` becomes that class here; see `errors.py`.
"""

from .start import start

__all__ = ["start"]
