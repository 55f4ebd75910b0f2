"""The KwaaiNet node: the same files run in a browser tab, on CPython and in the simulator."""

__version__ = "0.1.0"
