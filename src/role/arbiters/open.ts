// The arbiter that the configuration names.

import { readFileSync, statSync } from "node:fs";
import { native } from "../../../addon/native.js";
import type { Config } from "../../config/schema.js";
import { exitCodes, sentenceOf, TandemError } from "../../errors.js";
import { anyAnswers } from "../../net/echo-request.js";
import type { Arbiter, ArbiterNews } from "./arbiter.js";
import { EtcdArbiter } from "./etcd.js";
import { EtcdClient } from "./etcd-client.js";
import { ExternalArbiter, statementFile } from "./external.js";
import { PairArbiter } from "./pair.js";

type EtcdConfig = Extract<Config["pair"]["arbiter"], { kind: "etcd" }>;

/** Throws TandemError ARBITER_FILE. */
export function openArbiter(config: Config, news: ArbiterNews): Arbiter {
  const { arbiter, heartbeat } = config.pair;
  const now = () => native.bootTimeNs();
  switch (arbiter.kind) {
    case "pair":
      return new PairArbiter(arbiter.witnesses, anyAnswers);
    case "external":
      return new ExternalArbiter({ file: statementFile(config.paths.run), patienceMs: arbiter.patienceMs, now }, news);
    case "etcd":
      return new EtcdArbiter(
        openEtcd(arbiter),
        {
          router: config.router,
          key: `${arbiter.prefix}/voice`,
          ttlMs: arbiter.ttlMs,
          driftPpm: heartbeat.driftPpm,
          now,
        },
        news,
      );
  }
}

function openEtcd({ endpoints, tls, user, ttlMs }: EtcdConfig): EtcdClient {
  return new EtcdClient({
    endpoints,
    timeoutMs: ttlMs / 2,
    ...(tls && {
      tls: {
        ca: readGiven(tls.ca),
        ...(tls.cert !== undefined && tls.key !== undefined
          ? { cert: readGiven(tls.cert), key: readSecret(tls.key) }
          : {}),
      },
    }),
    ...(user && { user: { name: user.name, password: readSecret(user.passwordFile).replace(/\r?\n$/, "") } }),
  });
}

function readSecret(file: string): string {
  const text = readGiven(file);
  if ((statSync(file).mode & 0o077) !== 0) throw unusable(file, "can be read by others than its owner");
  return text;
}

function readGiven(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw unusable(file, `cannot be read: ${sentenceOf(error)}`);
  }
}

function unusable(file: string, why: string): TandemError {
  return new TandemError(
    "ARBITER_FILE",
    `The arbiter's ${file} ${why}.`,
    "Correct the path in pair.arbiter; private keys and passwords with mode 0600.",
    exitCodes.configuration,
  );
}
