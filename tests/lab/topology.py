"""Namespaces that stand for an internet: one public place, and homes behind NATs of four kinds.

    home eth0 ─ 192.168.N.0/24 ─ lan NAT wan ─ 203.0.113.(10+N) ─ public 203.0.113.1 ─ nowhere

A NAT is what Linux makes of it with nftables (RFC 4787 in brackets). What is sent to addresses
that nobody has is lost without a word, as on the internet.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final

__all__ = ["KINDS", "PUBLIC", "Home", "Topology", "lacking"]

PUBLIC: Final = "203.0.113.1"

KINDS: Final = ("full cone", "port-restricted", "symmetric", "udp blocked")

_MASQUERADE: Final = "add rule ip nat post oifname wan masquerade"
_NOTHING_NEW: Final = "add rule ip flt forwarded iifname wan ct state new drop"
_RULES: Final = {
    # One home a NAT, so its UDP is mapped one to one: endpoint-independent in both ways.
    "full cone": (
        "add rule ip nat post oifname wan snat to {outside}",
        "add rule ip nat pre iifname wan meta l4proto udp dnat to {home}",
    ),
    # Linux keeps the port where it can: endpoint-independent mapping, address- and port-dependent
    # filtering.
    "port-restricted": (_MASQUERADE, _NOTHING_NEW),
    # Another port for every connection: address- and port-dependent mapping and filtering.
    "symmetric": (
        "add rule ip nat post oifname wan meta l4proto udp masquerade fully-random",
        _MASQUERADE,
        _NOTHING_NEW,
    ),
    # An office that lets TCP out and nothing else.
    "udp blocked": (
        _MASQUERADE,
        "add rule ip flt forwarded iifname lan meta l4proto udp drop",
        _NOTHING_NEW,
    ),
}
_TABLES: Final = """
add table ip nat
add chain ip nat post {{ type nat hook postrouting priority 100; }}
add chain ip nat pre {{ type nat hook prerouting priority -100; }}
add table ip flt
add chain ip flt forwarded {{ type filter hook forward priority 0; }}
add chain ip flt own {{ type filter hook input priority 0; }}
add rule ip flt own iifname wan ct state new drop
"""


@dataclass(frozen=True)
class Home:
    """A place behind a NAT of its own."""

    kind: str
    number: int
    namespace: str


class Topology:
    """`with Topology(("full cone", …)) as topology`: a home for each kind that is named.

    Names begin with the process's number, so that two labs do not meet.
    """

    def __init__(self, kinds: tuple[str, ...]) -> None:
        prefix = f"kwl{os.getpid()}"
        self.public = f"{prefix}p"
        self._nowhere = f"{prefix}x"
        self.homes = [
            Home(kind, number, f"{prefix}h{number}") for number, kind in enumerate(kinds, 1)
        ]
        self._stack = ExitStack()

    def __enter__(self) -> Topology:
        with ExitStack() as stack:
            self._internet(stack)
            for home in self.homes:
                self._home(stack, home)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _internet(self, stack: ExitStack) -> None:
        public, nowhere = self.public, self._nowhere
        for name in (public, nowhere):
            _namespace(stack, name)
        _ip(
            f"link add away netns {public} type veth peer name s0 netns {nowhere}",
            f"-n {nowhere} link set s0 up",
            f"-n {nowhere} address add 198.18.0.2/30 dev s0",
            f"-n {public} address add {PUBLIC}/32 dev lo",
            f"-n {public} address add 198.18.0.1/30 dev away",
            f"-n {public} link set away up",
            f"-n {public} route add default via 198.18.0.2 src {PUBLIC}",
        )
        _forwards(public)

    def _home(self, stack: ExitStack, home: Home) -> None:
        nat, inside, public = f"{home.namespace}n", home.namespace, self.public
        outside, gateway, address = (
            f"203.0.113.{10 + home.number}",
            f"192.168.{home.number}.1",
            f"192.168.{home.number}.2",
        )
        for name in (inside, nat):
            _namespace(stack, name)
        _ip(
            f"link add p{home.number} netns {public} type veth peer name wan netns {nat}",
            f"-n {public} link set p{home.number} up",
            f"-n {public} route add {outside}/32 dev p{home.number} src {PUBLIC}",
            f"-n {nat} address add {outside}/32 dev wan",
            f"-n {nat} link set wan up",
            f"-n {nat} route add {PUBLIC}/32 dev wan",
            f"-n {nat} route add default via {PUBLIC} dev wan",
            f"link add lan netns {nat} type veth peer name eth0 netns {inside}",
            f"-n {nat} address add {gateway}/24 dev lan",
            f"-n {nat} link set lan up",
            f"-n {inside} address add {address}/24 dev eth0",
            f"-n {inside} link set eth0 up",
            f"-n {inside} route add default via {gateway}",
        )
        _forwards(nat)
        rules = _TABLES.format() + "\n".join(_RULES[home.kind]).format(
            outside=outside, home=address
        )
        _run(["ip", "netns", "exec", nat, "nft", "-f", "-"], rules)


def lacking() -> str:
    """Why no lab can be built here; "" when one can."""
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            return f"{tool} is not on this machine (build/setup.sh nat installs it)"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    try:
        with ExitStack() as stack:
            name = f"kwl{os.getpid()}t"
            _namespace(stack, name)
            _run(["ip", "netns", "exec", name, "nft", "-f", "-"], _TABLES.format())
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made: {error.stderr.strip()}"
    return ""


def _namespace(stack: ExitStack, name: str) -> None:
    _run(["ip", "netns", "add", name])
    stack.callback(_run, ["ip", "netns", "delete", name])
    _run(["ip", "-n", name, "link", "set", "lo", "up"])


def _forwards(name: str) -> None:
    command = ["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1"]
    _run(command)


def _ip(*commands: str) -> None:
    for command in commands:
        _run(["ip", *command.split()])


def _run(command: list[str], text: str = "") -> None:
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)
