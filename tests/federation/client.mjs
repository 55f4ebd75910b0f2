// js-libp2p beside the relays: looks records up, offers some, hears and says gossip.
//   node client.mjs MULTIADDR [SEED in hex]
// Commands come as JSON lines on stdin, answers and gossip go out as JSON lines; bytes are base64.
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { gossipsub } from '@libp2p/gossipsub';
import { identify } from '@libp2p/identify';
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht';
import { ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { createInterface } from 'node:readline';

const TOPIC = 'kwaainet/relays/1';
const NAMESPACES = ['kwn', 'kwr'];
const each = (value) => Object.fromEntries(NAMESPACES.map((name) => [name, value]));
const bytes = (text) => Uint8Array.from(Buffer.from(text, 'base64'));
const text = (data) => Buffer.from(data.subarray()).toString('base64');
const name = (key) => new TextEncoder().encode(key);
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const [address, seed] = process.argv.slice(2);
const node = await createLibp2p({
  ...(seed && { privateKey: await generateKeyPairFromSeed('Ed25519', Buffer.from(seed, 'hex')) }),
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionGater: { denyDialMultiaddr: () => false },
  services: {
    identify: identify(),
    ping: ping(),
    dht: kadDHT({
      protocol: '/ipfs/kad/1.0.0',
      clientMode: true,
      peerInfoMapper: passthroughMapper,
      validators: each(async () => {}),
      selectors: each(() => 0),
    }),
    pubsub: gossipsub({ allowPublishToZeroTopicPeers: true }),
  },
});
const { dht, pubsub } = node.services;
pubsub.addEventListener('message', ({ detail }) => {
  if (detail.topic === TOPIC) say({ gossip: text(detail.data), from: String(detail.from) });
});
pubsub.subscribe(TOPIC);
const { remotePeer } = await node.dial(multiaddr(address));
while (pubsub.getSubscribers(TOPIC).length === 0 || pubsub.getMeshPeers(TOPIC).length === 0) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
say({ ready: String(node.peerId) });

async function value(key) {
  for await (const event of dht.get(name(key), { signal: AbortSignal.timeout(10_000) })) {
    if (event.name === 'VALUE') return text(event.value);
  }
  return null;
}

/** How many peers have taken it. */
async function put(key, data) {
  await dht.routingTable.add(remotePeer); // who refused something is dropped from it
  let taken = 0;
  for await (const event of dht.put(name(key), bytes(data))) {
    if (event.name === 'PEER_RESPONSE' && event.messageName === 'PUT_VALUE') taken += 1;
  }
  return taken;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { get, key, data, publish } = JSON.parse(line);
  try {
    if (get) say({ answer: await value(get) });
    else if (key) say({ answer: await put(key, data) });
    else if (publish) {
      await pubsub.publish(TOPIC, bytes(publish));
      say({ answer: pubsub.getMeshPeers(TOPIC).length });
    }
  } catch (error) {
    say({ answer: null, error: String(error) });
  }
}
await node.stop();
process.exit(0);
