"""A peer of hivemind's DHT, told what to do line by line. Runs in hivemind's own environment.

Each line of input is JSON, and each is answered by a line of JSON. The first lists the addresses of
first peers; the others are [verb, argument …].
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from typing import Any

warnings.filterwarnings("ignore")

from hivemind.dht.crypto import RSASignatureValidator  # noqa: E402 - it warns
from hivemind.dht.node import DHTNode  # noqa: E402
from hivemind.dht.routing import DHTID  # noqa: E402
from hivemind.dht.storage import DictionaryDHTValue  # noqa: E402
from hivemind.dht.validation import DHTRecord  # noqa: E402
from hivemind.p2p import P2P, PeerID  # noqa: E402
from hivemind.proto import dht_pb2, p2pd_pb2  # noqa: E402
from hivemind.utils import MSGPackSerializer, get_dht_time  # noqa: E402


def plain(value: Any) -> Any:
    """What JSON can hold: tuples become lists, hivemind's timed values their values."""
    if isinstance(value, DictionaryDHTValue):
        return {str(key): MSGPackSerializer.loads(one.value) for key, one in value.items()}
    if hasattr(value, "expiration_time"):
        return plain(value.value)
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value.hex() if isinstance(value, bytes) else value


def fields() -> dict[str, dict[str, list[Any]]]:
    """Numbers, types and repetition of hivemind's own messages."""
    return {
        name: {str(field.number): [field.type, field.is_repeated] for field in message.fields}
        for file in (dht_pb2, p2pd_pb2)
        for name, message in file.DESCRIPTOR.message_types_by_name.items()
    }


async def do(p2p: P2P, node: DHTNode, verb: str, *arguments: Any) -> Any:
    match verb, arguments:
        case "get", (names,):
            found = await node.get_many(names, sufficient_expiration_time=float("inf"))
            return {name: plain(one) for name, one in found.items()}
        case "store", (name, subkey, value, life):
            return await node.store(name, value, get_dht_time() + life, subkey=subkey)
        case "ping", (peer,):
            answer = await node.protocol.call_ping(PeerID.from_base58(peer), validate=True)
            return None if answer is None else answer.to_bytes().hex()
        case "give", (peer, name, value, life):
            packed = MSGPackSerializer.dumps(value)
            answer = await node.protocol.call_store(
                PeerID.from_base58(peer), [DHTID.generate(name)], [packed], get_dht_time() + life
            )
            return None if answer is None else list(answer)
        case "give_owned", (peer, name, forged):
            owner = RSASignatureValidator()
            key, life = DHTID.generate(name), get_dht_time() + 60
            subkey = b"me" + owner.local_public_key
            record = (key.to_bytes(), MSGPackSerializer.dumps(subkey), MSGPackSerializer.dumps(1))
            value = owner.sign_value(DHTRecord(*record, life))
            if forged:
                value = b"\x02" + value[1:]
            answer = await node.protocol.call_store(
                PeerID.from_base58(peer), [key], [value], life, subkeys=[subkey]
            )
            return None if answer is None else list(answer)
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
        case "fields", ():
            return fields()
    raise ValueError(verb)


async def main() -> None:
    first = json.loads(sys.stdin.readline()) or None
    p2p = await P2P.create(
        initial_peers=first,
        host_maddrs=["/ip4/127.0.0.1/tcp/0"],
        use_relay=False,
        dht_mode="server",
        force_reachability="private",
    )
    node = await DHTNode.create(p2p=p2p, initial_peers=first)
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
    asyncio.run(main())
