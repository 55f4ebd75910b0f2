/** The page: asks, shows the answer as it comes, and says what to do when there is none. */

import { setUpLending, showLending, showRunning, updateLending } from './lending.js';
import { cdn, loadTag } from './network.js';
import { drawNetwork, drawRoute, setFlowing, waiting } from './route.js';

const $ = (id) => document.getElementById(id);
const form = $('form');
const prompt = $('prompt');
const go = $('go');
const stop = $('stop');
const spoken = $('spoken');
/** Answers that stay on the page, and messages that are said again with the next. */
const KEPT = 20;
const REMEMBERED = 12;

let network;
let status = null;
let asking = null;
/** The route of the last answer. */
let taken = null;
/** What was said, for a model with a form for messages; each answer is to all of it. */
let talk = [];

// --- what the network says ------------------------------------------------------------------

function say(message, action, act, about = '') {
  $('notice').hidden = !message;
  $('notice').dataset.about = about;
  $('notice-text').textContent = message;
  $('notice-action').hidden = !action;
  $('notice-action').textContent = action ?? '';
  $('notice-action').onclick = act ?? null;
}

function chip(state, text) {
  $('chip').dataset.state = state;
  $('chip-text').textContent = text;
}

function progress(text, share) {
  $('loading').hidden = text === null;
  if (text === null) return;
  $('loading-text').textContent = share === null ? text : `${text}, ${Math.round(share * 100)} %`;
  if (share === null) $('loading-bar').removeAttribute('value');
  else $('loading-bar').value = share;
}

const onConsent = {
  granted: () => {
    say('');
    showLending(true);
    chip('warn', 'starting');
    waiting('Your node is starting.');
  },
  asking: () => say(''),
  unasked: invite,
  denied: invite,
};

function invite() {
  showLending(false);
  progress(null);
  status = null;
  taken = null;
  chip('off', 'not joined');
  waiting('Join to see who runs which layers.');
  say(
    'To ask the model, lend it a little of this computer while the page is open.',
    'Take part',
    () => network.consent.ask(),
    'invite',
  );
}

function onStatus(now) {
  status = now;
  updateLending(now);
  if (now.state === 'ready') progress(null);
  if (now.state === 'stopped') return chip('off', 'stopped');
  const others = now.peers.length;
  const alone = others === 0 ? 'alone so far' : `${others} other${others === 1 ? '' : 's'}`;
  if (now.state !== 'ready') chip('warn', now.state);
  else if (!now.relay.connected) chip('warn', 'no relay');
  else chip('on', alone);
  advise(now);
  if (!asking && !stillTaken(now)) drawNetwork(now);
  return undefined;
}

/** The way of the last answer stays in the picture for as long as it could be taken again. */
function stillTaken({ peer, span, peers }) {
  const own = { peer, first_block: span?.[0], last_block: span?.[1] };
  const there = (hop) =>
    [own, ...peers].some(
      (each) =>
        each.peer === hop.peer &&
        each.first_block <= hop.first_block &&
        hop.last_block <= each.last_block,
    );
  if (!taken?.every(there)) taken = null;
  return taken !== null;
}

function advise({ state, relay, problem }) {
  if (problem) say(problem, null, null, 'problem');
  else if (state === 'ready' && !relay.connected) noRelay();
  else if (['relay', 'problem'].includes($('notice').dataset.about)) say('');
}

function noRelay() {
  const text = `The relay at ${cdn} does not answer, so tabs cannot find each other. It is tried again by itself.`;
  say(text, null, null, 'relay');
}

function onFailed({ message }) {
  progress(null);
  chip('warn', 'not running');
  waiting('No node runs in this tab.');
  say(message, 'Try again', () => network.start().catch((error) => say(error.message)));
}

// --- asking -----------------------------------------------------------------------------------

function newAnswer(text) {
  $('empty').hidden = true;
  const box = document.createElement('article');
  box.className = 'answer';
  const words = document.createElement('p');
  const theirs = document.createElement('span');
  theirs.className = 'theirs growing';
  words.append(text, ...(status?.model?.chat ? [document.createElement('br')] : []), theirs);
  const facts = document.createElement('p');
  facts.className = 'facts';
  box.append(words, facts);
  $('answers').prepend(box);
  while ($('answers').childElementCount > KEPT + 1) $('answers').lastElementChild.remove();
  return { theirs, facts };
}

/** A screen reader hears whole clauses, not tokens. */
function speaker() {
  let pending = '';
  return (text, end = false) => {
    pending += text;
    const cut = end
      ? pending.length
      : Math.max(...['. ', ', ', '\n', ': '].map((mark) => pending.lastIndexOf(mark))) + 1;
    if (cut <= 0) return;
    spoken.textContent = pending.slice(0, cut);
    pending = pending.slice(cut);
  };
}

/** The stream of an answer: to the talk so far, or a continuation by a model that only has that. */
function answering(text) {
  const options = {
    temperature: Number($('temperature').value),
    max_tokens: Number($('max-tokens').value),
    stream: true,
    signal: asking.signal,
  };
  if (!status?.model?.chat) return network.completions.create({ ...options, prompt: text });
  talk = [...talk.slice(-REMEMBERED), { role: 'user', content: text }];
  return network.chat.completions.create({ ...options, messages: talk });
}

async function ask(text) {
  asking = new AbortController();
  const { theirs, facts } = newAnswer(text);
  const speak = speaker();
  const began = performance.now();
  let tokens = 0;
  facts.textContent = 'Looking for a route…';
  try {
    for await (const chunk of await answering(text)) {
      const { kwaainet, choices } = chunk;
      const last = choices[0].finish_reason !== null;
      if (kwaainet?.route) {
        taken = kwaainet.route;
        drawRoute(taken, status?.model?.blocks, status?.peer, !last);
      }
      const more = choices[0].text ?? choices[0].delta?.content ?? '';
      if (more) tokens += 1;
      theirs.append(more);
      speak(more, last);
      const seconds = (performance.now() - began) / 1000;
      facts.textContent = last
        ? summary(chunk)
        : `${tokens} tokens · ${(tokens / seconds).toFixed(1)} a second`;
    }
  } catch (error) {
    explain(error, facts, tokens);
  } finally {
    const said = theirs.textContent;
    // Turns alternate: a question without an answer is taken back.
    if (said && talk.length) talk.push({ role: 'assistant', content: said });
    else talk.pop();
    theirs.classList.remove('growing');
    setFlowing(false);
    asking = null;
  }
}

function summary({ usage, kwaainet }) {
  const { route, ttft_ms: first, decode_tok_s: rate, reroutes = 0 } = kwaainet;
  const computers = new Set(route.map(({ peer }) => peer)).size;
  const parts = [
    `${usage.completion_tokens} tokens`,
    `${rate.toFixed(1)} a second`,
    `first after ${(first / 1000).toFixed(2)} s`,
    `${computers} computer${computers === 1 ? '' : 's'}`,
  ];
  if (reroutes) parts.push(`rerouted ${reroutes === 1 ? 'once' : `${reroutes} times`}`);
  return parts.join(' · ');
}

const WHAT_TO_DO = {
  NoRoute:
    'Some layers are run by nobody. Open this page in another tab or on another device, and ask again.',
  Unreachable: 'The others cannot be reached. Is the relay up? Ask again in a moment.',
  NotRunning: 'Lending is stopped. Press “Lend again” to ask.',
  ConsentRequired: 'Take part first: then your tab can ask.',
};

function explain(error, facts, tokens) {
  if (error.name === 'AbortError') {
    facts.textContent = `Stopped after ${tokens} tokens`;
    return;
  }
  facts.classList.add('wrong');
  facts.textContent = WHAT_TO_DO[error.code] ?? error.message;
  spoken.textContent = facts.textContent;
}

function busy(now) {
  go.disabled = now;
  stop.hidden = !now;
}

form.onsubmit = async (event) => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (asking || !text) return;
  if (network && network.consent.state !== 'granted') {
    await network.consent.ask();
    if (network.consent.state !== 'granted') return;
  }
  if (!network) return;
  const focused = document.activeElement === go;
  busy(true);
  if (focused) stop.focus();
  await ask(text);
  const back = document.activeElement === stop;
  busy(false);
  if (back) go.focus();
};
stop.onclick = () => asking?.abort();
prompt.onkeydown = (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
};
for (const button of document.querySelectorAll('[data-example]')) {
  button.onclick = () => {
    prompt.value = button.textContent;
    prompt.focus();
  };
}
for (const name of ['temperature', 'max-tokens']) {
  $(name).oninput = () => {
    $(`${name}-out`).textContent = $(name).value;
  };
}

// --- start --------------------------------------------------------------------------------------

try {
  network = await loadTag();
  setUpLending(network, say);
  network.on('consent', (state) => onConsent[state]());
  network.on('progress', ({ text, share }) => progress(text, share));
  network.on('worker', () => showRunning(true));
  network.on('status', onStatus);
  network.on('failed', onFailed);
} catch (error) {
  chip('warn', 'no relay');
  say(
    `The relay at ${cdn} does not answer (${error.message}). Start one, or wait until it is back.`,
    'Try again',
    () => location.reload(),
  );
}
