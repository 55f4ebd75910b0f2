// What a frame does, as far as these tests need it: boots workers and keeps what they say.
// Runs in a page; every Boot makes a client {said, until, call} that tests drive by number.

// biome-ignore-all lint/correctness/noUnusedVariables: called from the tests.

const clients = [];

async function bootWorker({ hosting, cdn, attributes = {}, version = 1, script = '/worker.js' }) {
  const { port1, port2 } = new MessageChannel();
  const said = [];
  const waiting = [];
  const told = () => {
    for (const one of [...waiting]) {
      const found = said.find(one.wanted);
      if (found) {
        waiting.splice(waiting.indexOf(one), 1);
        one.resolve(found);
      }
    }
  };
  port1.onmessage = ({ data }) => {
    said.push(data);
    told();
  };
  const until = (wanted) =>
    new Promise((resolve) => {
      waiting.push({ wanted, resolve });
      told();
    });
  const config = { attributes, site: location.origin, cdn };
  const boot = { type: 'boot', version, config, hosting };
  const target = await host(hosting, script, said, told);
  target.postMessage(boot, [port2]);
  clients.push({ said, until, port: port1, target });
  return clients.length - 1;
}

async function host(hosting, script, said, told) {
  if (hosting === 'service-worker') {
    const registration = await navigator.serviceWorker.register(script);
    await navigator.serviceWorker.ready;
    return registration.active;
  }
  const worker = new Worker(script);
  worker.onerror = (event) => {
    said.push({
      type: 'notice',
      event: 'failed',
      value: { code: 'Error', message: event.message },
    });
    told();
  };
  return worker;
}

/** The `worker` notice, or `failed`. */
function started(client) {
  return clients[client].until(({ event }) => event === 'worker' || event === 'failed');
}

function answer(client, id) {
  return clients[client].until(
    (one) => one.type === 'reply' && one.id === id && one.event !== 'chunk',
  );
}

function ask(client, id, method, params = null) {
  clients[client].port.postMessage({ type: 'call', id, method, params });
  return answer(client, id);
}

function heartbeat(client) {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = ({ data }) => resolve(data);
    clients[client].target.postMessage({ type: 'heartbeat' }, [port2]);
  });
}
