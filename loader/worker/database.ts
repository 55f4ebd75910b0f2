/** IndexedDB as three small tables. Where it is denied every call rejects, and callers cope. */

const NAME = 'kwaainet';
const VERSION = 1;
const TABLES = ['keys', 'values', 'blobs'] as const;
/** Some browsers neither allow nor refuse, but never answer. */
const OPEN_MS = 5000;

export type Table = (typeof TABLES)[number];

let database: Promise<IDBDatabase> | undefined;

export async function read<T>(table: Table, key: string): Promise<T | undefined> {
  return request(table, 'readonly', (store) => store.get(key) as IDBRequest<T | undefined>);
}

export async function write(table: Table, key: string, value: unknown): Promise<void> {
  await request(table, 'readwrite', (store) => store.put(value, key));
}

/** Keeps what is there already, and returns what is there then: two tabs may start at once. */
export async function writeOnce<T>(table: Table, key: string, value: T): Promise<T> {
  const store = (await open()).transaction(table, 'readwrite').objectStore(table);
  const held = await settled(store.get(key) as IDBRequest<T | undefined>);
  if (held !== undefined) return held;
  await settled(store.put(value, key));
  return value;
}

export async function remove(table: Table, key: string): Promise<void> {
  await request(table, 'readwrite', (store) => store.delete(key));
}

/** [key, value] of everything. */
export async function entries<T>(table: Table): Promise<[string, T][]> {
  const store = (await open()).transaction(table, 'readonly').objectStore(table);
  const [keys, values] = await Promise.all([
    settled(store.getAllKeys()),
    settled(store.getAll() as IDBRequest<T[]>),
  ]);
  return keys.map((key, index) => [key as string, values[index] as T]);
}

async function request<T>(
  table: Table,
  mode: IDBTransactionMode,
  ask: (store: IDBObjectStore) => IDBRequest<T>,
): Promise<T> {
  return settled(ask((await open()).transaction(table, mode).objectStore(table)));
}

function open(): Promise<IDBDatabase> {
  database ??= new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('IndexedDB does not answer')), OPEN_MS);
    const opening = indexedDB.open(NAME, VERSION);
    opening.onupgradeneeded = () => {
      for (const table of TABLES) opening.result.createObjectStore(table);
    };
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
    opening.onblocked = () => reject(new Error('IndexedDB is blocked by another version'));
  });
  return database;
}

function settled<T>(asked: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}
