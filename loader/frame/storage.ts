/** Deletes all that the node stored in this partition: what withdrawn consent asks for. */

import { within } from './deadline';

/** A database that a dying worker still holds open delays its deletion. */
const DELETE_MS = 3000;

export async function clearStorage(): Promise<void> {
  const jobs = [clearCaches, clearDatabases, clearFiles].map((job) =>
    within(DELETE_MS, 'deleting', job()),
  );
  await Promise.allSettled(jobs); // each may be denied on its own; then nothing was stored there
}

async function clearCaches(): Promise<void> {
  for (const name of await caches.keys()) await caches.delete(name);
}

async function clearDatabases(): Promise<void> {
  for (const { name } of await indexedDB.databases()) {
    if (!name) continue;
    await new Promise((resolve) => {
      const request = indexedDB.deleteDatabase(name);
      request.onsuccess = resolve;
      request.onerror = resolve;
    });
  }
}

async function clearFiles(): Promise<void> {
  const root = (await navigator.storage.getDirectory()) as FileSystemDirectoryHandle & {
    keys(): AsyncIterable<string>; // in every browser, not yet in TypeScript's library
  };
  for await (const name of root.keys()) await root.removeEntry(name, { recursive: true });
}
