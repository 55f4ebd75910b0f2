/** Numbers and blocks in words. */

const NUMBER = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });
const CELL = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 2 });

export function number(value: number): string {
  return value < 100_000 ? NUMBER.format(value) : SHORT.format(value);
}

/** For a cell of a few letters: 999, 1.2K, 12K. */
export function tight(value: number): string {
  return value < 1000 ? String(value) : CELL.format(value);
}

export function count(value: number, one: string, many = `${one}s`): string {
  return `${number(value)} ${value === 1 ? one : many}`;
}

/** "3", "3 and 7", "0–2, 5 and 9–11"; of many runs the first few. */
export function blocks(which: number[], runs = 6): string {
  const found: [number, number][] = [];
  for (const block of which) {
    const last = found.at(-1);
    if (last && last[1] === block - 1) last[1] = block;
    else found.push([block, block]);
  }
  const texts = found.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`));
  const shown = texts.length > runs + 1 ? texts.slice(0, runs) : texts;
  const rest = texts.length - shown.length;
  if (rest) return `${shown.join(', ')} and ${rest} more places`;
  return shown.length > 1 ? `${shown.slice(0, -1).join(', ')} and ${shown.at(-1)}` : shown.join('');
}

/** Indexes at which `test` holds. */
export function where(values: number[], test: (value: number) => boolean): number[] {
  return values.flatMap((value, index) => (test(value) ? [index] : []));
}

const ENGINES: Record<string, string> = {
  webgpu: 'WebGPU',
  'webgpu-fp16': 'WebGPU, half precision',
  wasm: 'WebAssembly',
  'wasm-int8': 'WebAssembly, 8 bits',
  'wasm-int4': 'WebAssembly, 4 bits',
  onnxruntime: 'Native',
  'onnxruntime-fp32': 'Native, 32 bits',
  simulated: 'Simulated',
  other: 'Something else',
};

export function engine(name: string): string {
  return ENGINES[name] ?? name;
}

export function ago(seconds: number): string {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

const CLOCK = new Intl.DateTimeFormat('en', {
  hour: '2-digit',
  minute: '2-digit',
  hourCycle: 'h23',
});

export function clock(seconds: number): string {
  return CLOCK.format(seconds * 1000);
}
