// What both routers' configurations must have in common, as digests by key that they compare when they meet.
import { createHash } from "node:crypto";
import { isLive } from "./reference.js";
import type { Config } from "./schema.js";

/** By path of the key: a digest of what stands there, defaults filled in. */
export type Agreement = Record<string, string>;

/** Keys that change while an agent runs are left out: each router applies its own. */
export function agreementOf(config: Config): Agreement {
  const { preferred, routers, heartbeat, onSilence, arbiter } = config.pair;
  // By their place: a service's number is its place in the list.
  const services = config.services.map((service, index) => [
    `services.${index}`,
    Object.fromEntries(Object.entries(service).filter(([key]) => !isLive(["services", 0, key]))),
  ]);
  const parts: Record<string, unknown> = {
    "pair.preferred": preferred,
    "pair.routers.a": routers.a,
    "pair.routers.b": routers.b,
    "pair.heartbeat": heartbeat,
    "pair.onSilence": onSilence,
    "pair.arbiter": arbiterOf(arbiter),
    virtualMac: config.virtualMac ?? null,
    ...Object.fromEntries(services),
  };
  return Object.fromEntries(Object.entries(parts).map(([key, value]) => [key, digest(value)]));
}

/** The keys whose values differ, or that only one router has. */
export function disagreements(own: Agreement, partner: Agreement): string[] {
  return [...new Set([...Object.keys(own), ...Object.keys(partner)])].filter((key) => own[key] !== partner[key]);
}

/** The keys of a section are in the schema's order, whatever the file's is. */
function digest(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 32);
}

/** How each router reaches the arbiter is its own affair. */
function arbiterOf(arbiter: Config["pair"]["arbiter"]): unknown[] {
  switch (arbiter.kind) {
    case "pair":
      return [arbiter.kind];
    case "etcd":
      return [arbiter.kind, arbiter.prefix];
    case "external":
      return [arbiter.kind, arbiter.patienceMs];
  }
}
