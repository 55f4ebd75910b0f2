/** One line for each step: what was done, how long it took, or that nothing had to be done. */

export async function step(name, work) {
  const start = performance.now();
  const note = await work();
  const ms = Math.round(performance.now() - start);
  console.log(`${name.padEnd(34)} ${String(note ?? '').padEnd(40)} ${ms} ms`);
}

export function kilobytes(bytes) {
  return `${(bytes / 1000).toFixed(0)} kB`;
}
