/** `data-max-resources`: what the visitor is asked to lend, read so that consent can say it. */

import { KwaaiNetError } from './errors';

/** Percent of one processor core; MB; MB. */
export interface Resources {
  cpu: number;
  memory: number;
  storage: number;
}

/** What is asked for when the site says nothing. */
const DEFAULTS: Resources = { cpu: 20, memory: 1024, storage: 5000 };
const NAMES = Object.keys(DEFAULTS) as (keyof Resources)[];

/** Raises ConfigError with the line to write instead. */
export function parseResources(text = ''): Resources {
  const resources = { ...DEFAULTS };
  for (const part of text.split(',').filter((each) => each.trim())) {
    const [, name, amount] = /^\s*(cpu|memory|storage)\s*:\s*(\d+)\s*$/.exec(part) ?? [];
    const value = Number(amount);
    if (!name || (name === 'cpu' && !(value > 0 && value <= 100))) {
      const example = `data-max-resources="${writeResources(DEFAULTS)}"`;
      throw new KwaaiNetError(
        'ConfigError',
        `data-max-resources does not parse at "${part.trim()}". Write percent of one core, MB and MB: ${example}`,
        { setting: 'max-resources' },
      );
    }
    resources[name as keyof Resources] = value;
  }
  return resources;
}

export function writeResources(resources: Resources): string {
  return NAMES.map((name) => `${name}:${resources[name]}`).join();
}

/** What the visitor may set: less than agreed, never more. */
export function lower(limits: Partial<Resources>, agreed: Resources): Partial<Resources> {
  const given = NAMES.filter((name) => typeof limits[name] === 'number');
  return Object.fromEntries(
    given.map((name) => [name, Math.min(Number(limits[name]), agreed[name])]),
  );
}

/** Whether `asked` stays within what was agreed to. */
export function within(asked: Resources, agreed: Resources): boolean {
  return NAMES.every((name) => asked[name] <= agreed[name]);
}

export function size(megabytes: number): string {
  return megabytes < 1000 ? `${megabytes} MB` : `${Number((megabytes / 1000).toFixed(1))} GB`;
}
