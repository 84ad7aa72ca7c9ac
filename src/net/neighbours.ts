// Does anybody on the LAN answer this router? Asked are neighbours, by ARP and neighbour solicitation, which no firewall
// refuses: the kernel does it (neighbour unreachability detection, RFC 4861, 7.3), and an answer proves that frames get
// there and back.

import { execFile } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { z } from "zod";
import { type LinkInfo, native } from "../../addon/native.js";

const run = promisify(execFile);

/** Asked at once; more would say no more. */
const most = 16;
const pollMs = 20;
/** States of an entry (linux/neighbour.h): it has answered; nobody is to be asked. */
const NUD_REACHABLE = 0x02;
const NUD_FIXED = 0x40 | 0x80;

const table = z.array(z.object({ dst: z.string(), lladdr: z.string().optional(), state: z.array(z.string()) }));

export interface Neighbour {
  /** Index of the uplink it is behind, the same on both routers. */
  uplink: number;
  address: string;
}

interface Uplinks {
  uplinks: readonly { index: number; link: Pick<LinkInfo, "name" | "ifindex"> }[];
}

/** Those that this router has spoken to, but for hosts of these link-layer addresses. */
export async function neighboursOf({ uplinks }: Uplinks, except: readonly string[]): Promise<Neighbour[]> {
  const found: Neighbour[] = [];
  for (const { index, link } of uplinks) {
    const { stdout } = await run("ip", ["-json", "neighbour", "show", "dev", link.name]);
    for (const { dst, lladdr, state } of table.parse(JSON.parse(stdout || "[]")))
      if (lladdr !== undefined && !except.includes(lladdr) && !state.includes("NOARP") && !state.includes("PERMANENT"))
        found.push({ uplink: index, address: dst });
  }
  return found.slice(0, most);
}

/** True as soon as one of them answers; false when none has for `limitMs`. */
export async function anyReachable(
  { uplinks }: Uplinks,
  neighbours: readonly Neighbour[],
  limitMs: number,
): Promise<boolean> {
  const asked: { ifindex: number; address: string }[] = [];
  const ask = async ({ uplink, address }: Neighbour): Promise<void> => {
    const link = uplinks.find(({ index }) => index === uplink)?.link;
    if (link !== undefined && (await probe(link, address))) asked.push({ ifindex: link.ifindex, address });
  };
  await Promise.all(neighbours.map(ask));
  for (const deadline = performance.now() + limitMs; ; await delay(pollMs)) {
    if (asked.some(({ ifindex, address }) => native.neighbour(ifindex, address)?.state === NUD_REACHABLE)) return true;
    if (performance.now() > deadline) return false;
  }
}

/** A known one is asked at its link-layer address, another one by broadcast or multicast. False: it cannot be asked. */
async function probe({ name, ifindex }: Pick<LinkInfo, "name" | "ifindex">, address: string): Promise<boolean> {
  const entry = native.neighbour(ifindex, address);
  if (((entry?.state ?? 0) & NUD_FIXED) !== 0) return false;
  const how =
    entry?.mac.length === 6
      ? ["change", address, "dev", name, "nud", "probe"]
      : ["replace", address, "dev", name, "use"];
  return run("ip", ["neighbour", ...how]).then(
    () => true,
    () => false,
  );
}
