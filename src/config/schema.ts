// The configuration file: its shape, its defaults, and the rules that span several fields.
import net from "node:net";
import { z } from "zod";

const ip = z.string().refine((text) => net.isIP(text) !== 0, "is not an IP address");
const ipv4 = z.string().refine((text) => net.isIPv4(text), "is not an IPv4 address (the mirror link is IPv4)");
const device = z
  .string()
  .min(1)
  .max(15)
  .regex(/^[^\s/:]+$/, "is not an interface name");
const port = z.int().min(1).max(65535);
const directory = z.string().startsWith("/", "must be an absolute path");

const uplink = z.strictObject({
  device,
  /** This router's own address there: the pulse's second path runs between the first uplinks' addresses. */
  address: ip,
});

const router = z.strictObject({
  mirror: z.strictObject({ device, address: ipv4 }),
  uplinks: z.array(uplink).min(1).max(8),
});

const service = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,30}$/, "must be lower-case letters, digits and dashes, at most 31"),
  /** The service addresses: on both routers, only the one with the voice answers for them. */
  addresses: z.array(ip).min(1).max(16),
  /** Passive: the local port peers connect to. */
  port: port.optional(),
  /** Active open: the remote port our application connects to. */
  remotePort: port.optional(),
  /** Where the resume point comes from. */
  mode: z.enum(["live"]).default("live"),
  /** What a session that could not be held ready gets at a takeover. */
  lost: z.enum(["reset", "silent"]).default("reset"),
});

export const configSchema = z
  .strictObject({
    /** Which of the two routers this file is for. */
    router: z.enum(["a", "b"]),
    pair: z.strictObject({
      /** Directory with secret, a.crt, b.crt and this router's .key (made by `tandem pair init`). */
      keys: directory,
      preferred: z.enum(["a", "b"]).default("a"),
      routers: z.strictObject({ a: router, b: router }),
      heartbeat: z
        .strictObject({
          intervalMs: z.number().min(1).max(1000).default(10),
          /** The lease: an active unheard for so long is dead. */
          deadMs: z.number().min(5).max(60_000).default(50),
          /** A controller that does nothing for so long is dead, too. */
          controllerMs: z.number().min(1000).max(60_000).default(2000),
          /** How far the two clocks may run apart, parts per million. */
          driftPpm: z.int().min(0).max(100_000).default(1000),
          port: port.default(7401),
        })
        .prefault({}),
      controlPort: port.default(7402),
      /** When the standby has been silent on both paths for a lease: go on alone, or be mute until it is back. */
      onSilence: z.enum(["solo", "mute"]).default("solo"),
      /** How long a router that has just started listens for its partner before it decides alone. */
      startAloneMs: z.int().min(100).max(600_000).default(3000),
    }),
    services: z.array(service).min(1).max(64),
    /** The interface that carries the service addresses: "lo" (IPv4 only), or an uplink; the first one if not given. */
    addressDevice: device.optional(),
    recorder: z
      .strictObject({
        /** Ring between the data plane and the recorder; a power of two, bytes. */
        ringBytes: z
          .int()
          .min(1 << 16)
          .max(1 << 30)
          .refine((bytes) => (bytes & (bytes - 1)) === 0, "must be a power of two")
          .default(16 << 20),
        sessionBytes: z
          .int()
          .min(1 << 16)
          .max(1 << 30)
          .default(32 << 20),
        totalBytes: z
          .int()
          .min(1 << 20)
          .default(1 << 30),
      })
      .prefault({}),
    xdp: z.enum(["native", "generic"]).default("native"),
    /** For how long after a takeover resets that nobody meant do not leave. */
    quarantineMs: z.int().min(0).max(600_000).default(60_000),
    paths: z
      .strictObject({
        state: directory.default("/var/lib/tandem"),
        run: directory.default("/run/tandem"),
        bpf: directory.default("/sys/fs/bpf/tandem"),
      })
      .prefault({}),
  })
  .superRefine((config, context) => {
    const issue = (path: (string | number)[], message: string) => context.addIssue({ code: "custom", path, message });
    const names = new Set<string>();
    const listeners = new Map<string, string>();
    config.services.forEach((entry, index) => {
      if (names.has(entry.name)) issue(["services", index, "name"], `"${entry.name}" is used twice`);
      names.add(entry.name);
      if ((entry.port === undefined) === (entry.remotePort === undefined))
        issue(
          ["services", index],
          "give exactly one of port (peers connect to us) and remotePort (we connect to them)",
        );
      for (const address of entry.addresses) {
        const key = `${address} ${entry.port ?? `remote ${entry.remotePort}`}`;
        const other = listeners.get(key);
        if (other) issue(["services", index, "addresses"], `${key} already belongs to service "${other}"`);
        listeners.set(key, entry.name);
      }
    });
    // ndisc_recv_ns (net/ipv6/ndisc.c) answers only for addresses of the device that is asked on.
    if (config.addressDevice === "lo" && config.services.some((entry) => entry.addresses.some(net.isIPv6)))
      issue(["addressDevice"], "lo answers no neighbour solicitations: name an uplink for IPv6 service addresses");
    const { a, b } = config.pair.routers;
    if (a.mirror.address === b.mirror.address)
      issue(["pair", "routers", "b", "mirror", "address"], "is the same as router a's");
    if (a.uplinks.length !== b.uplinks.length)
      issue(["pair", "routers", "b", "uplinks"], "must list as many uplinks as router a, in the same order");
    if (config.pair.heartbeat.deadMs < 3 * config.pair.heartbeat.intervalMs)
      issue(
        ["pair", "heartbeat", "deadMs"],
        "must be at least three heartbeat intervals, or one lost frame is a failover",
      );
    for (const [name, entry] of Object.entries({ a, b }))
      entry.uplinks.forEach((each, index) => {
        if (each.device === entry.mirror.device)
          issue(["pair", "routers", name, "uplinks", index, "device"], "is the mirror device, too");
      });
  });

export type Config = z.infer<typeof configSchema>;

/** Where the service addresses live on this router. */
export function addressDeviceOf(config: Config): string {
  return config.addressDevice ?? config.pair.routers[config.router].uplinks[0]?.device ?? "lo";
}

export type RouterName = Config["router"];
export type Service = Config["services"][number];
