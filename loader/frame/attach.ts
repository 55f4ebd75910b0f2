/** The only door into the frame: one window message from its own parent. */

import { type ErrorData, PROTOCOL_VERSION, type TagConfig } from '../protocol';

export interface Attachment {
  config: TagConfig;
  port: MessagePort;
}

/**
 * Null for everything that is not the tag's Attach: anybody who holds a reference to this window
 * can post to it, and a page may post what it likes before the tag does.
 *
 * Any site may embed the frame, so there is no list of origins; but the site must be who it says
 * it is, because the node tells others.
 */
export function accept(event: MessageEvent): Attachment | null {
  const { data, ports, origin, source } = event;
  const port = ports[0];
  if (window.parent === window || source !== window.parent) return null;
  if (!port || ports.length !== 1 || !isRecord(data) || data.type !== 'kwaainet-attach')
    return null;
  const config = readConfig(data.config);
  if (config?.site !== origin || config.cdn !== location.origin) return null;
  if (data.version !== PROTOCOL_VERSION) {
    refuse(port, data.version);
    return null;
  }
  return { config, port };
}

/** A tag from an old cache deserves an answer; the frame itself stays as it was. */
function refuse(port: MessagePort, version: unknown): void {
  const value: ErrorData = {
    code: 'ProtocolError',
    message: `The page runs protocol version ${version}, this frame ${PROTOCOL_VERSION}: reload the page without cache`,
  };
  port.postMessage({ type: 'notice', event: 'failed', value });
  port.close();
}

function readConfig(value: unknown): TagConfig | null {
  if (!isRecord(value) || !isRecord(value.attributes)) return null;
  const { site, cdn, attributes } = value;
  if (typeof site !== 'string' || typeof cdn !== 'string') return null;
  if (!Object.values(attributes).every((each) => typeof each === 'string')) return null;
  return { site, cdn, attributes: attributes as Record<string, string> };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
