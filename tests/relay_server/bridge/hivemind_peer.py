"""A peer of hivemind's DHT, told what to do line by line. Runs in hivemind's own environment.

    hivemind_peer.py [first peer …]

Each line of input is JSON, [verb, argument …], and each is answered by a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from typing import Any

warnings.filterwarnings("ignore")

from hivemind.dht.node import DHTNode  # noqa: E402 - it warns when it is imported
from hivemind.dht.routing import DHTID  # noqa: E402
from hivemind.p2p import P2P, PeerID  # noqa: E402
from hivemind.utils import MSGPackSerializer, get_dht_time  # noqa: E402
from hivemind.utils.multiaddr import Multiaddr  # noqa: E402


def plain(value: Any) -> Any:
    """What JSON can hold: tuples become lists, hivemind's timed values their values."""
    if hasattr(value, "expiration_time"):
        return plain(value.value)
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value.hex() if isinstance(value, bytes) else value


async def do(p2p: P2P, node: DHTNode, verb: str, *arguments: Any) -> Any:
    match verb, arguments:
        case "get", (name,):
            found = await node.get(name, latest=True)
            return None if found is None else [plain(found), found.expiration_time - get_dht_time()]
        case "get_many", (names,):
            found = await node.get_many(names, sufficient_expiration_time=float("inf"))
            return {name: plain(one) for name, one in found.items()}
        case "store", (name, subkey, value, life):
            return await node.store(name, value, get_dht_time() + life, subkey=subkey)
        case "ping", (peer, validate):
            answer = await node.protocol.call_ping(PeerID.from_base58(peer), validate=validate)
            return None if answer is None else answer.to_bytes().hex()
        case "dial", (address,):
            whole = Multiaddr(address)
            peer = PeerID.from_base58(whole["p2p"])
            await p2p._client.connect(peer, [whole.decapsulate("/p2p/" + whole["p2p"])])
            return True
        case "give", (peer, name, value, life):
            key = DHTID.generate(name)
            packed = MSGPackSerializer.dumps(value)
            to = PeerID.from_base58(peer)
            return list(await node.protocol.call_store(to, [key], [packed], get_dht_time() + life))
        case "ask", (peer, name):
            key = DHTID.generate(name)
            answer = await node.protocol.call_find(PeerID.from_base58(peer), [key])
            if answer is None:
                return None
            held, near = answer[key]
            value = held and held.value
            if isinstance(value, bytes):
                value = MSGPackSerializer.loads(value)
            return [plain(value), [one.to_base58() for one in near.values()]]
        case "known", ():
            return [one.to_base58() for one in node.protocol.routing_table.peer_id_to_uid]
    raise ValueError(verb)


async def main(first: list[str]) -> None:
    p2p = await P2P.create(
        initial_peers=first or None,
        host_maddrs=["/ip4/127.0.0.1/tcp/0"],
        use_relay=False,
        use_auto_relay=False,
        dht_mode="server",
        force_reachability="private",
    )
    node = await DHTNode.create(p2p=p2p, initial_peers=first or None)
    addresses = [str(one) for one in await p2p.get_visible_maddrs()]
    print(json.dumps({"addresses": addresses, "peer": p2p.peer_id.to_base58()}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = {"answer": await do(p2p, node, *json.loads(line))}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
    await node.shutdown()
    await p2p.shutdown()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
