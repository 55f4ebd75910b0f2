/**
 * The node's identity and its sealing keys, by WebCrypto: private halves never leave the browser
 * and are not extractable, not even for this script.
 */

import { bytesOf, type PythonBytes } from './buffers';
import { writeOnce } from './database';
import { NodeError } from './errors';
import { type FileBytes, fileOf, type PieceFile } from './file';
import { unlock } from './unlock';

const IDENTITY = 'ed25519';
const NONCE_BYTES = 12;
const MAX_RANDOM = 65_536;

class Cipher {
  constructor(private readonly key: CryptoKey) {}

  async seal(
    nonce: PythonBytes,
    plain: PythonBytes,
    associated: PythonBytes,
  ): Promise<ArrayBuffer> {
    return crypto.subtle.encrypt(aead(nonce, associated), this.key, bytesOf(plain));
  }

  async open(
    nonce: PythonBytes,
    sealed: PythonBytes,
    associated: PythonBytes,
  ): Promise<ArrayBuffer> {
    const parameters = aead(nonce, associated);
    const bytes = bytesOf(sealed);
    try {
      return await crypto.subtle.decrypt(parameters, this.key, bytes);
    } catch (error) {
      throw new NodeError(
        'SealError',
        'a sealed packet is not authentic: open a new session',
        error,
      );
    }
  }
}

function aead(nonce: PythonBytes, associated: PythonBytes): AesGcmParams {
  const iv = bytesOf(nonce);
  if (iv.byteLength !== NONCE_BYTES) throw new NodeError('SealError', 'a nonce has 12 bytes');
  return { name: 'AES-GCM', iv, additionalData: bytesOf(associated) };
}

/** The shared secret of one agreement; makes a cipher for each direction. */
class Secret {
  constructor(
    private readonly material: CryptoKey,
    private readonly salt: Uint8Array<ArrayBuffer>,
  ) {}

  async cipher(info: PythonBytes): Promise<Cipher> {
    const derivation = { name: 'HKDF', hash: 'SHA-256', salt: this.salt, info: bytesOf(info) };
    const kind = { name: 'AES-GCM', length: 256 };
    const usages: KeyUsage[] = ['encrypt', 'decrypt'];
    return new Cipher(
      await crypto.subtle.deriveKey(derivation, this.material, kind, false, usages),
    );
  }
}

class Agreement {
  constructor(
    private readonly privateKey: CryptoKey,
    readonly publicKey: ArrayBuffer,
  ) {}

  async derive(peer: PythonBytes, salt: PythonBytes): Promise<Secret> {
    const theirs = bytesOf(peer);
    const salted = bytesOf(salt);
    try {
      const key = await crypto.subtle.importKey('raw', theirs, { name: 'X25519' }, false, []);
      const shared = await crypto.subtle.deriveBits(
        { name: 'X25519', public: key },
        this.privateKey,
        256,
      );
      // RFC 7748, section 6.1: a key of low order agrees on zero. Browsers refuse it too.
      if (new Uint8Array(shared).every((byte) => byte === 0)) throw new Error('all zero');
      const material = await crypto.subtle.importKey('raw', shared, 'HKDF', false, ['deriveKey']);
      return new Secret(material, salted);
    } catch (error) {
      throw new NodeError('SealError', "the other side's key agrees on nothing", error);
    }
  }
}

export class Keys {
  private constructor(
    private readonly identity: CryptoKeyPair,
    readonly publicKey: ArrayBuffer,
  ) {}

  /** The stored identity, or a new one; without storage it lives as long as the worker. */
  static async open(): Promise<Keys> {
    const usages: KeyUsage[] = ['sign', 'verify'];
    const fresh = await crypto.subtle.generateKey({ name: 'Ed25519' }, false, usages);
    const pair = await writeOnce('keys', IDENTITY, fresh as CryptoKeyPair).catch(() => fresh);
    const { publicKey } = pair as CryptoKeyPair;
    return new Keys(pair as CryptoKeyPair, await crypto.subtle.exportKey('raw', publicKey));
  }

  async sign(data: PythonBytes): Promise<ArrayBuffer> {
    return crypto.subtle.sign('Ed25519', this.identity.privateKey, bytesOf(data));
  }

  /** False for whatever is not a valid signature. */
  async verify(key: PythonBytes, signature: PythonBytes, data: PythonBytes): Promise<boolean> {
    const [raw, proof, message] = [bytesOf(key), bytesOf(signature), bytesOf(data)];
    try {
      const theirs = await crypto.subtle.importKey('raw', raw, 'Ed25519', false, ['verify']);
      return await crypto.subtle.verify('Ed25519', theirs, proof, message);
    } catch {
      return false;
    }
  }

  async agreement(): Promise<Agreement> {
    const pair = (await crypto.subtle.generateKey({ name: 'X25519' }, false, [
      'deriveBits',
    ])) as CryptoKeyPair;
    return new Agreement(pair.privateKey, await crypto.subtle.exportKey('raw', pair.publicKey));
  }

  /** A file of a private model, or its pieces from `first` on: they are sealed one by one. */
  async unlock(key: PythonBytes, file: number, blob: FileBytes, first: number): Promise<PieceFile> {
    return unlock(bytesOf(key), file, fileOf(blob), first);
  }

  random(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let at = 0; at < count; at += MAX_RANDOM) {
      crypto.getRandomValues(bytes.subarray(at, at + MAX_RANDOM));
    }
    return bytes;
  }
}
