// The pair's keys: there, closed to others, of one pair, and not about to expire.
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { Config } from "../config/schema.js";
import { TandemError } from "../errors.js";
import { type PairKeys, readPairKeys } from "../pair/keys.js";
import { type Finding, found, ok } from "./finding.js";

const soonMs = 30 * 86_400_000;
const renew = "tandem pair init --keys NEWDIR, and copy it to both routers as docs/cli.md says";

/** `now`: Unix time, ms. */
export function checkKeys(config: Config, now = Date.now()): Finding[] {
  let keys: PairKeys;
  try {
    keys = readPairKeys(config.pair.keys, config.router);
  } catch (error) {
    if (!(error instanceof TandemError)) throw error;
    return [found("problem", "keys", error.message, error.remedy)];
  }
  const wrong = [
    ...certificate(`${config.router}.crt`, keys.certificate, now),
    ...certificate(`${config.router === "a" ? "b" : "a"}.crt`, keys.partnerCertificate, now),
  ];
  const own = parse(keys.certificate);
  if (own && !own.checkPrivateKey(createPrivateKey(keys.privateKey)))
    wrong.push(found("problem", "keys", `${config.router}.key does not belong to ${config.router}.crt.`, renew));
  if (keys.certificate === keys.partnerCertificate)
    wrong.push(found("problem", "keys", "Both certificates are the same.", renew));
  return wrong.length > 0 ? wrong : [ok("keys", `The keys are right until ${own?.validTo}.`)];
}

function certificate(name: string, text: string, now: number): Finding[] {
  const parsed = parse(text);
  if (!parsed) return [found("problem", "keys", `${name} is no certificate.`, renew)];
  const [from, to] = [Date.parse(parsed.validFrom), Date.parse(parsed.validTo)];
  if (now < from)
    return [found("problem", "keys", `${name} is valid from ${parsed.validFrom} on: the clock is wrong.`, "date")];
  if (now > to) return [found("problem", "keys", `${name} expired at ${parsed.validTo}.`, renew)];
  if (to - now < soonMs) return [found("warning", "keys", `${name} expires at ${parsed.validTo}.`, renew)];
  return [];
}

function parse(text: string): X509Certificate | null {
  try {
    return new X509Certificate(text);
  } catch {
    return null;
  }
}
