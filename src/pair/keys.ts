// The pair's secrets: made once by `tandem pair init`, read at start. Nothing of them is ever logged.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
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

const names = ["secret", "a.crt", "a.key", "b.crt", "b.key"] as const;

/** Makes them in `directory`, secrets with mode 0600. Throws TandemError KEYS_EXIST, or KEYS_FAILED; then nothing of them
 * is left. */
export function createPairKeys(directory: string): void {
  const fileOf = (name: (typeof names)[number]): string => path.join(directory, name);
  const there = names.filter((name) => existsSync(fileOf(name)));
  if (there.length > 0)
    throw new TandemError(
      "KEYS_EXIST",
      `${directory} holds ${there.join(", ")} already.`,
      "Choose another directory, or remove the old keys from both routers first.",
      exitCodes.refused,
    );
  try {
    makeDirectory(path.resolve(directory), 0o700);
    writeFileSync(fileOf("secret"), `${randomBytes(32).toString("hex")}\n`, { mode: 0o600, flag: "wx" });
    for (const router of ["a", "b"] as const) {
      execFileSync(
        "openssl",
        ["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "3650", "-subj", `/CN=tandem-${router}`]
          .concat(["-addext", `subjectAltName=DNS:tandem-${router}`])
          .concat(["-keyout", fileOf(`${router}.key`), "-out", fileOf(`${router}.crt`)]),
        { stdio: ["ignore", "ignore", "pipe"] },
      );
      chmodSync(fileOf(`${router}.key`), 0o600);
    }
  } catch (error) {
    for (const name of names) if (existsSync(fileOf(name))) rmSync(fileOf(name));
    throw new TandemError(
      "KEYS_FAILED",
      `The keys cannot be made in ${directory}: ${sentenceOf(error)}.`,
      "Name a directory that you may write to; openssl must be installed.",
    );
  }
}

/** And those above it. Node's own recursive mkdir never ends where the kernel lets nobody make one (/proc). */
function makeDirectory(directory: string, mode: number): void {
  if (existsSync(directory)) return;
  makeDirectory(path.dirname(directory), 0o755);
  mkdirSync(directory, { mode });
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
