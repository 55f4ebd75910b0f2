/** Puts the tag on the page: which relay, and with which attributes. */

/** May be set in the address of a page that runs on this very machine. */
const FROM_ADDRESS = ['model', 'relay', 'engine', 'path', 'max-blocks', 'max-resources'];

const settings = document.querySelector('meta[name="kwaainet"]');

/** A link must not be able to choose whose script a published page runs. */
function local() {
  return /^(localhost|.*\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(location.hostname);
}

function choose() {
  const address = new URLSearchParams(local() ? location.search : '');
  const attributes = { meter: 'none' }; // this page shows its own
  for (const { name, value } of settings.attributes) {
    if (name.startsWith('data-')) attributes[name.slice('data-'.length)] = value;
  }
  const written = settings.content.startsWith('http') ? settings.content : location.origin;
  for (const name of FROM_ADDRESS) {
    if (address.has(name)) attributes[name] = address.get(name);
  }
  return { cdn: new URL(address.get('cdn') ?? written).origin, attributes };
}

export const { cdn, attributes } = choose();

/** Resolves to window.KwaaiNet; rejects when the relay does not give the tag. */
export function loadTag() {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script');
    for (const [name, value] of Object.entries(attributes)) {
      script.setAttribute(`data-${name}`, value);
    }
    script.src = `${cdn}/sovereign-ai.js`;
    script.onload = () =>
      window.KwaaiNet ? resolve(window.KwaaiNet) : reject(new Error('the tag did not start'));
    script.onerror = () => reject(new Error(`${script.src} does not load`));
    document.head.append(script);
  });
}
