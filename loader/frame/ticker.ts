/**
 * A clock that hidden tabs do not slow down.
 *
 * A window's timers fall to one a minute after a few minutes in a hidden tab, and a service
 * worker lives 30 s without an event. A worker's timers keep their pace; it costs one idle thread.
 */

const TICK_MS = 1000;

export function beTicker(): void {
  setInterval(() => self.postMessage(0), TICK_MS);
}

/** Calls `tick` about every second until the returned function is called. */
export function startTicker(script: string, tick: () => void): () => void {
  try {
    const worker = new Worker(script, { name: 'kwaainet-clock' });
    worker.onmessage = tick;
    return () => worker.terminate();
  } catch {
    const timer = setInterval(tick, TICK_MS);
    return () => clearInterval(timer);
  }
}
