/** What the site wrote on the tag. */

import type { TagConfig } from '../protocol';
import { KwaaiNetError } from './errors';
import { parseResources, type Resources, writeResources } from './resources';

export interface Settings {
  config: TagConfig;
  resources: Resources;
  /** `manual`: never ask by itself, only when the page calls `KwaaiNet.consent.ask()`. */
  consent: 'ask' | 'manual';
  meter: 'right' | 'left' | 'none';
}

/** Raises ConfigError for what the tag itself must understand; the rest is judged by the node. */
export function readSettings(element: HTMLScriptElement): Settings {
  const attributes: Record<string, string> = {};
  for (const { name, value } of element.attributes) {
    if (name.startsWith('data-')) attributes[name.slice(5)] = value;
  }
  const resources = parseResources(attributes['max-resources']);
  // The visitor agrees to these numbers, so these are what the node gets, defaults included.
  attributes['max-resources'] = writeResources(resources);
  return {
    config: { attributes, site: location.origin, cdn: new URL(element.src).origin },
    resources,
    consent: choice(attributes, 'consent', ['ask', 'manual']),
    meter: choice(attributes, 'meter', ['right', 'left', 'none']),
  };
}

function choice<T extends string>(
  attributes: Record<string, string>,
  name: string,
  choices: [T, ...T[]],
): T {
  const value = attributes[name] ?? choices[0];
  if (choices.includes(value as T)) return value as T;
  throw new KwaaiNetError(
    'ConfigError',
    `data-${name}="${value}" does not parse. Write one of: ${choices.join(', ')}`,
    { setting: name },
  );
}
