// The pair's secrets: made once by `tandem pair init`, read at start. Nothing of them is ever logged.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { RouterName } from "../config/schema.js";
import { exitCodes, sentenceOf, TandemError } from "../errors.js";

export interface PairKeys {
  /** Marks the pair's frames on the mirror link; 8 bytes. */
  cookie: Uint8Array;
  /** SipHash key of the pulse; 16 bytes. */
  pulseKey: Uint8Array;
  certificate: string;
  privateKey: string;
  partnerCertificate: string;
}

/** Makes secret, a.crt, a.key, b.crt, b.key in `directory` (mode 0700; files 0600). Refuses to overwrite. */
export function createPairKeys(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  chmodSync(directory, 0o700);
  try {
    writeFileSync(path.join(directory, "secret"), `${randomBytes(32).toString("hex")}\n`, { mode: 0o600, flag: "wx" });
  } catch (error) {
    throw new TandemError(
      "KEYS_EXIST",
      `${directory} cannot take new keys: ${sentenceOf(error)}.`,
      "Choose another directory, or remove the old keys from both routers first.",
      exitCodes.refused,
    );
  }
  for (const name of ["a", "b"]) {
    const key = path.join(directory, `${name}.key`);
    execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "3650", "-subj", `/CN=tandem-${name}`]
        .concat(["-addext", `subjectAltName=DNS:tandem-${name}`])
        .concat(["-keyout", key, "-out", path.join(directory, `${name}.crt`)]),
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    chmodSync(key, 0o600);
  }
}

/** Reads this router's part. Throws TandemError KEYS_MISSING, KEYS_EXPOSED (others can read them), KEYS_INVALID. */
export function readPairKeys(directory: string, router: RouterName): PairKeys {
  const partner = router === "a" ? "b" : "a";
  const read = (name: string) => {
    const file = path.join(directory, name);
    try {
      if (!name.endsWith(".crt") && (statSync(file).mode & 0o077) !== 0)
        throw new TandemError(
          "KEYS_EXPOSED",
          `${file} can be read by others than its owner.`,
          `Run: chmod 600 ${file} (and make new keys if it was exposed).`,
          exitCodes.configuration,
        );
      return readFileSync(file, "utf8");
    } catch (error) {
      if (error instanceof TandemError) throw error;
      throw new TandemError(
        "KEYS_MISSING",
        `The pair's key file cannot be read: ${sentenceOf(error)}.`,
        "Make keys with `tandem pair init --keys DIR` on one router and copy them to the other.",
        exitCodes.configuration,
      );
    }
  };
  const secret = Buffer.from(read("secret").trim(), "hex");
  if (secret.length !== 32)
    throw new TandemError(
      "KEYS_INVALID",
      `${path.join(directory, "secret")} is not 32 bytes in hexadecimal.`,
      "Make new keys with `tandem pair init` and copy them to both routers.",
      exitCodes.configuration,
    );
  return {
    cookie: secret.subarray(0, 8),
    pulseKey: secret.subarray(8, 24),
    certificate: read(`${router}.crt`),
    privateKey: read(`${router}.key`),
    partnerCertificate: read(`${partner}.crt`),
  };
}
