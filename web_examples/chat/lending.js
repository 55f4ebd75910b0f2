/** What this computer lends: use against limits, sliders that only go down from what was agreed. */

import { attributes } from './network.js';

const section = document.getElementById('lending');
const served = document.getElementById('served');
const power = document.getElementById('power');
const withdraw = document.getElementById('withdraw');

const RESOURCES = [
  { name: 'cpu', label: 'Processor', unit: '% of a core', least: 1, step: 1 },
  { name: 'memory', label: 'Memory', unit: 'MB', least: 64, step: 32 },
  { name: 'storage', label: 'Storage', unit: 'MB', least: 0, step: 100 },
];

const agreed = Object.fromEntries(
  (attributes['max-resources'] ?? 'cpu:20,memory:1024,storage:5000')
    .split(',')
    .map((each) => each.split(':')),
);

const meters = new Map();
let running = true;

export function setUpLending(network, say) {
  for (const resource of RESOURCES) meters.set(resource.name, makeMeter(resource, network, say));
  document.getElementById('meters').append(...[...meters.values()].map(({ box }) => box));
  power.onclick = () =>
    (running ? network.stop() : network.start()).then(() => showRunning(!running));
  withdraw.onclick = () => network.consent.withdraw();
}

export function showLending(visible) {
  section.hidden = !visible;
}

export function showRunning(now) {
  running = now;
  power.textContent = running ? 'Stop lending' : 'Lend again';
}

export function updateLending({ budget, served: totals }) {
  showRunning(true);
  served.textContent = totals.tokens.toLocaleString('en');
  for (const meter of meters.values()) show(meter, budget[meter.name]);
}

function show({ slider, out, unit, most }, { used, limit }) {
  if (document.activeElement !== slider) slider.value = limit;
  slider.style.setProperty('--used', share(Math.min(used, limit), most));
  slider.style.setProperty('--limit', share(limit, most));
  out.textContent = `${Math.round(used)} of ${limit} ${unit}`;
}

function share(amount, most) {
  return `${(100 * amount) / (most || 1)}%`;
}

function makeMeter({ name, label, unit, least, step }, network, say) {
  const box = make('div', { className: 'meter' });
  const title = make('label', { textContent: `${label}, at most`, htmlFor: `limit-${name}` });
  const out = make('output', { textContent: `0 of ${agreed[name]} ${unit}` });
  const slider = make('input', {
    type: 'range',
    id: `limit-${name}`,
    min: least,
    max: agreed[name],
    step,
  });
  slider.value = agreed[name];
  const told = () => slider.setAttribute('aria-valuetext', `at most ${slider.value} ${unit}`);
  slider.oninput = told;
  told();
  slider.onchange = async () => {
    try {
      await network.limits({ [name]: Number(slider.value) });
    } catch (error) {
      say(error.message);
    }
  };
  box.append(title, out, slider);
  return { name, box, out, slider, unit, most: Number(agreed[name]) };
}

function make(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
