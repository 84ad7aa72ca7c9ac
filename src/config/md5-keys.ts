// The TCP MD5 keys that the configuration names, read from their files. Nothing of them is ever logged, nor written.

import { readFileSync, statSync } from "node:fs";
import { exitCodes, sentenceOf, TandemError } from "../errors.js";
import { parsePrefix } from "../net/addresses.js";
import type { Md5Key } from "../session/md5-keys.js";
import type { Config } from "./schema.js";

/** TCP_MD5SIG_MAXKEYLEN (linux/tcp.h). */
const longestKey = 80;

/** Throws TandemError MD5_KEY_UNREADABLE, MD5_KEY_EXPOSED (others can read it), MD5_KEY_INVALID. */
export function readMd5Keys({ services }: Config): Md5Key[] {
  return services.flatMap(({ md5 }, service) =>
    md5.flatMap(({ peer, keyFile }) => {
      const prefix = parsePrefix(peer);
      if (prefix === null) throw new Error(`${peer} passed the configuration check`);
      return [{ service, family: prefix.family, prefix: prefix.bytes, bits: prefix.bits, key: readKeyFile(keyFile) }];
    }),
  );
}

function readKeyFile(file: string): Uint8Array {
  let mode: number;
  let bytes: Buffer;
  try {
    mode = statSync(file).mode;
    bytes = readFileSync(file);
  } catch (error) {
    throw new TandemError(
      "MD5_KEY_UNREADABLE",
      `The TCP MD5 key ${file} cannot be read: ${sentenceOf(error)}.`,
      "Correct services[].md5[].keyFile; the file is needed on both routers.",
      exitCodes.configuration,
    );
  }
  if ((mode & 0o077) !== 0)
    throw new TandemError(
      "MD5_KEY_EXPOSED",
      `${file} can be read by others than its owner.`,
      `Run: chmod 600 ${file} (and agree on a new key with the peer if it was exposed).`,
      exitCodes.configuration,
    );
  const key = bytes.at(-1) === 0x0a ? bytes.subarray(0, -1) : bytes;
  if (key.length < 1 || key.length > longestKey)
    throw new TandemError(
      "MD5_KEY_INVALID",
      `${file} holds a TCP MD5 key of ${key.length} bytes.`,
      `A key has 1 to ${longestKey} bytes; a line end after it does not count.`,
      exitCodes.configuration,
    );
  return Uint8Array.from(key);
}
