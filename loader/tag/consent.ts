/**
 * What the visitor answered. Nothing is stored before an answer, and only the answer then, on the
 * site's own origin.
 */

import type { ConsentState } from './events';
import { type Resources, within } from './resources';

const KEY = 'kwaainet-consent';

export interface Answer {
  yes: boolean;
  /** What was agreed to; a site that later asks for more asks again. */
  resources: Resources;
  /** Given although the browser sends Global Privacy Control, so by an own click. */
  gpc: boolean;
  /** The visitor pressed Stop: stay stopped on the next page too. */
  paused?: boolean;
  /** What the visitor turned down since. */
  limits?: Partial<Resources>;
}

export function privacyControl(): boolean {
  return (navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl === true;
}

/** Null where there is none, or storage is denied, or somebody else wrote there. */
export function readAnswer(): Answer | null {
  try {
    const answer = JSON.parse(localStorage.getItem(KEY) ?? 'null') as Answer | null;
    return typeof answer?.yes === 'boolean' && answer.resources ? answer : null;
  } catch {
    return null;
  }
}

/** Without storage the answer holds for this page only. */
export function writeAnswer(answer: Answer): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(answer));
  } catch {}
}

/** Calls `changed` when another tab of the site stored another answer. */
export function watchAnswer(changed: () => void): void {
  addEventListener('storage', ({ key }) => {
    if (key === KEY || key === null) changed();
  });
}

/** Global Privacy Control is a no until the visitor says yes while it is on. */
export function judge(answer: Answer | null, asked: Resources): ConsentState {
  if (answer?.yes && within(asked, answer.resources) && (answer.gpc || !privacyControl()))
    return 'granted';
  if (privacyControl() || answer?.yes === false) return 'denied';
  return 'unasked';
}
