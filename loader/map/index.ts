/** The map's page: takes the relay's feed in and draws what changed, once a frame at the most. */

import { showModels } from './cards';
import { Charts } from './charts';
import { byId, mark, write } from './elements';
import { Feed, type State } from './feed';
import { showOverview } from './overview';
import { changed, type History, type Message, type NetworkMap } from './protocol';
import { ago, clock } from './words';

const STATES: Record<State, string> = {
  connecting: 'connecting',
  live: 'live',
  asking: 'live feed is full or blocked: asking every 10 s',
  lost: 'connection lost',
  resting: 'paused',
};

const charts = new Charts();
let map: NetworkMap | undefined;
let drawing = false;
let state: State = 'connecting';
let again = 0;

function take(message: Message): void {
  if (message.type === 'sample') charts.add(message);
  else if (message.type === 'map') map = message;
  else if (message.type === 'change' && map) map = changed(map, message);
  else return;
  draw();
}

function draw(): void {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (!map) return;
    showOverview(map);
    showModels(map);
    charts.now(map);
  });
}

function say(next: State, due: number): void {
  again = due;
  const came = next === 'live' && state !== 'live';
  state = next;
  if (came) void recall();
  const chip = byId('chip');
  mark(chip, 'state', state);
  write(byId('chip-text'), STATES[state]);
  old(state === 'lost');
  tell();
}

/** Nobody should take former numbers for those of now. */
function old(lost: boolean): void {
  const note = byId('stale');
  if (lost && note.hidden && map) {
    write(
      note,
      `The relay does not answer. What you see is how it was at ${clock(Date.now() / 1000)}.`,
    );
  }
  note.hidden = !lost || !map;
}

/** How old this is: not for screen readers, who would hear of it every second. */
function tell(): void {
  const seconds = Math.max(0, Math.ceil((again - Date.now()) / 1000));
  let text = '';
  if (state === 'lost') text = `trying again in ${seconds} s`;
  else if (state === 'live' && map) text = `changed ${ago(Date.now() / 1000 - map.time)}`;
  write(byId('chip-age'), text);
}

/** What was missed, the first time all of it. */
async function recall(): Promise<void> {
  try {
    const answer = await fetch('map/history.json');
    if (answer.ok) charts.begin((await answer.json()) as History);
  } catch {
    // The next connection asks again.
  }
}

function address(): string {
  return new URL('.', location.href).href.replace(/\/$/, '');
}

write(byId('begin-tag'), `<script async src="${address()}/sovereign-ai.js"></script>`);
write(byId('begin-start'), `kwaainet start --relay ${address()}`);
byId('chip-age').setAttribute('aria-hidden', 'true');
byId('others').addEventListener('toggle', draw);
new Feed(take, say);
setInterval(tell, 1000);
