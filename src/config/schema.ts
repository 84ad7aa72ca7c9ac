// The configuration file: its shape, its defaults, and the rules that span several fields.
import net from "node:net";
import { z } from "zod";
import { parsePrefix } from "../net/addresses.js";

const ip = z.string().refine((text) => net.isIP(text) !== 0, "is not an IP address");
const ipv4 = z.string().refine((text) => net.isIPv4(text), "is not an IPv4 address (the mirror link is IPv4)");
const device = z
  .string()
  .min(1)
  .max(15)
  .regex(/^[^\s/:]+$/, "is not an interface name");
const port = z.int().min(1).max(65535);
const directory = z.string().startsWith("/", "must be an absolute path");

/** A key that `tandem reload` changes while the agent runs: whoever uses it reads it then. Others need a restart. */
const live = (description: string) => ({ description, live: true });

const uplink = z.strictObject({
  device: device.describe("Its name on this router."),
  address: ip.describe("The router's own address there. The second path of the heartbeat is between the first ones."),
});

const router = z.strictObject({
  mirror: z
    .strictObject({
      device: device.describe("Its name on this router."),
      address: ipv4.describe("The router's own IPv4 address there."),
    })
    .describe(
      "The link between the two routers that every protected segment takes. Its MTU must exceed the uplinks' by 86.",
    ),
  uplinks: z
    .array(uplink)
    .min(1)
    .max(8)
    .describe(
      "All devices by which segments of the services may come or leave, in the same order on both routers; by any other they are dropped.",
    ),
});

const file = z.string().startsWith("/", "must be an absolute path");

const pairArbiter = z.strictObject({
  kind: z.literal("pair").describe("The two routers alone, by pair.onSilence."),
  witnesses: z
    .array(ip)
    .max(8)
    .default([])
    .describe(
      "Hosts beyond the uplinks that answer pings. A router that lost its partner and reaches none of them stays silent; they never allow anything.",
    ),
});

const etcdArbiter = z.strictObject({
  kind: z.literal("etcd").describe("An etcd cluster (3.4 or newer): strict."),
  endpoints: z
    .array(z.url({ protocol: /^https?$/ }).refine((text) => /^\/?$/.test(new URL(text).pathname), "must have no path"))
    .min(1)
    .max(16)
    .describe("URLs of its members; any of them may be away, as long as a majority is not."),
  prefix: z
    .string()
    .regex(/^\/[\x21-\x7e]*[^/]$/, "must begin with a slash and not end with one")
    .default("/tandem")
    .describe("The pair's register is the key PREFIX/voice. Each pair needs a prefix of its own."),
  ttlMs: z
    .int()
    .min(1000)
    .max(600_000)
    .default(5000)
    .describe("How long a router that speaks alone may do so without having renewed its word in etcd."),
  tls: z
    .strictObject({
      ca: file.describe("Certificates that sign those of the members (PEM)."),
      cert: file.optional().describe("Client certificate (PEM), without a common name: etcd's gateway refuses others."),
      key: file.optional().describe("Its private key (PEM)."),
    })
    .optional()
    .describe("For https: endpoints that the system's certificates do not vouch for, or that want to know us."),
  user: z
    .strictObject({
      name: z.string().min(1).describe("Needs a role that reads and writes the prefix."),
      passwordFile: file.describe("Holds the password, alone on its line; nobody else may read it."),
    })
    .optional()
    .describe("For a cluster with authentication."),
});

const externalArbiter = z.strictObject({
  kind: z
    .literal("external")
    .describe("keepalived, Pacemaker or an operator, by `tandem arbiter grant` and `revoke`: as strict as they are."),
  patienceMs: z
    .int()
    .min(1000)
    .max(600_000)
    .default(6000)
    .describe(
      "How long after the active fell silent a grant still lets the standby take its sessions over. An active that lost its standby waits at least as long before it goes on alone.",
    ),
});

const service = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,30}$/, "must be lower-case letters, digits and dashes, at most 31")
    .describe("What applications register for."),
  addresses: z
    .array(ip)
    .min(1)
    .max(16)
    .describe("The service addresses: put on both routers, and only the one with the voice answers for them."),
  port: port.optional().describe("Peers connect to us: the local port. Give this or remotePort."),
  remotePort: port.optional().describe("We connect to peers, from the service address: their port. Give this or port."),
  mode: z
    .enum(["live", "confirmed", "delivered"])
    .default("live")
    .describe(
      "Where the resume point comes from: live, the standby application's own reading of the mirrored stream; confirmed, what the active application confirmed last; delivered, what it has read from its socket (needs nothing of the application).",
    ),
  command: z
    .array(z.string().min(1))
    .min(1)
    .max(64)
    .optional()
    .describe(
      "Delivered only: the program, and its arguments, that is started for each session at a takeover, with the connection as standard input and output, when no application has registered for the service. One that ends its session by exiting needs exitZeroMeansClose.",
    ),
  md5: z
    .array(
      z.strictObject({
        peer: z
          .string()
          .refine((text) => parsePrefix(text) !== null, "is neither an IP address nor a prefix (ADDRESS/LENGTH)")
          .describe("A peer's address, or a prefix of peers; the longest one that fits counts."),
        keyFile: z
          .string()
          .startsWith("/", "must be an absolute path")
          .describe("Holds the key, 1 to 80 bytes, alone on its line; nobody but its owner may read it."),
      }),
    )
    .max(1024)
    .default([])
    .describe(
      "TCP MD5 keys (RFC 2385) of the service's peers, so that the standby can go on with signed sessions; an application with the SDK may give the key of each session instead.",
    ),
  lost: z
    .enum(["reset", "silent"])
    .default("reset")
    .meta(live("What the peer of a session that was not ready gets at a takeover.")),
  onCrash: z
    .enum(["takeover", "hold", "close"])
    .default("takeover")
    .describe(
      "What becomes of the sessions of an application that dies on a healthy active: takeover, the standby takes over at once if it holds them and no other service loses any; hold, the active answers the peers (with a window of zero once no more fits) until a local application registers and is given the sessions, and the standby takes over after holdMs; close, the peer hears the FIN or RST that the kernel sends for it.",
    ),
  holdMs: z
    .int()
    .min(0)
    .max(3_600_000)
    .default(30_000)
    .meta(
      live(
        "With onCrash: hold: for how long a local application may come back. A live one cannot: its input is with the standby.",
      ),
    ),
  exitZeroMeansClose: z
    .boolean()
    .default(false)
    .describe("A program that exits with code 0 without closing its connections means to close them."),
});

export const configSchema = z
  .strictObject({
    router: z.enum(["a", "b"]).describe("Which of the two routers this file is for."),
    pair: z
      .strictObject({
        keys: directory.describe(
          "Directory with secret, a.crt, b.crt and this router's .key, made by `tandem pair init`.",
        ),
        preferred: z
          .enum(["a", "b"])
          .default("a")
          .describe("The router that takes the voice when both start at the same time."),
        routers: z
          .strictObject({ a: router.describe("Router a."), b: router.describe("Router b.") })
          .describe("The two routers; the same in both files."),
        heartbeat: z
          .strictObject({
            intervalMs: z.number().min(1).max(1000).default(10).describe("Between two heartbeats."),
            deadMs: z
              .number()
              .min(5)
              .max(60_000)
              .default(50)
              .describe("The lease: an active unheard for so long is taken over from. Longer on a busy machine."),
            controllerMs: z
              .number()
              .min(1000)
              .max(60_000)
              .default(2000)
              .describe("An agent whose controller does nothing for so long counts as dead, too."),
            driftPpm: z
              .int()
              .min(0)
              .max(100_000)
              .default(1000)
              .describe("How far the two clocks may run apart, parts per million."),
            port: port.default(7401).describe("UDP, on both paths."),
          })
          .prefault({})
          .describe("Who finds out, and when, that a router is gone."),
        controlPort: port.default(7402).describe("TCP with TLS, on the mirror link."),
        onSilence: z
          .enum(["solo", "mute"])
          .default("solo")
          .describe(
            "When the standby has been silent on both paths for a lease: go on alone, or be mute until it is back. With arbiter pair only.",
          ),
        arbiter: z
          .discriminatedUnion("kind", [pairArbiter, etcdArbiter, externalArbiter])
          .prefault({ kind: "pair" })
          .describe("Who decides that a router may speak alone."),
        startAloneMs: z
          .int()
          .min(100)
          .max(600_000)
          .default(3000)
          .meta(live("How long a router that starts listens for its partner before it goes on alone.")),
      })
      .describe("The pair."),
    services: z.array(service).min(1).max(64).describe("What is protected."),
    addressDevice: device
      .optional()
      .describe(
        'The device that carries the service addresses; "lo" is for IPv4 only. If not given, the first uplink.',
      ),
    virtualMac: z
      .string()
      .regex(
        /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/,
        "must be six bytes as 02:00:5e:10:00:01, lower-case, no group address",
      )
      .refine((mac) => mac !== "00:00:00:00:00:00", "must not be all zero")
      .optional()
      .describe(
        "The service addresses have this MAC on the LANs, whichever router has the voice: neighbours keep their entry at a takeover, and only switches learn the port. As VRRP's 00:00:5e:00:01:XX, or one of your own (02:...); no device may have it.",
      ),
    onDuplicateAddress: z
      .enum(["refuse", "warn"])
      .default("refuse")
      .meta(
        live(
          "When somebody else answers for a service address: refuse, this router does not begin to speak alone; warn, it says so and begins. A takeover, and a router that has the voice, go on in either case and say so.",
        ),
      ),
    recorder: z
      .strictObject({
        ringBytes: z
          .int()
          .min(1 << 16)
          .max(1 << 30)
          .refine((bytes) => (bytes & (bytes - 1)) === 0, "must be a power of two")
          .default(16 << 20)
          .describe("Between data plane and recorder, a power of two. When it is full, sessions slow down."),
        sessionBytes: z
          .int()
          .min(1 << 16)
          .max(1 << 30)
          .default(32 << 20)
          .describe("Past it a stream's session is not ready (memory); it goes on working."),
        totalBytes: z
          .int()
          .min(1 << 20)
          .default(1 << 30)
          .describe("All streams together."),
      })
      .prefault({})
      .describe("What the standby keeps."),
    xdp: z.enum(["native", "generic"]).default("native").describe("generic where a driver has no native XDP (slower)."),
    http: z
      .union([
        z.literal("off"),
        z.strictObject({
          address: ip.default("127.0.0.1").describe("Where it listens."),
          port: port.default(9470).describe("TCP."),
        }),
      ])
      .prefault({})
      .describe(
        "Metrics, health and the status page: read-only, unencrypted, for whoever reaches the address; or off.",
      ),
    resumeReportMs: z
      .int()
      .min(1)
      .max(1000)
      .default(20)
      .describe(
        "Delivered services: how often the standby is told what applications have read since their last output; each output segment says it at once.",
      ),
    quarantineMs: z
      .int()
      .min(0)
      .max(600_000)
      .default(60_000)
      .meta(live("For so long after a takeover a reset that no application meant does not leave.")),
    hooks: z
      .strictObject({
        directory: directory
          .default("/etc/tandem/hooks.d")
          .meta(live("Every executable in it is run for every event, with phase and event as arguments.")),
        timeoutMs: z
          .int()
          .min(10)
          .max(600_000)
          .default(10_000)
          .meta(live("An executable that runs longer is killed, with all that it has started.")),
        before: z
          .array(z.enum(["abdicate", "fence", "announce", "nudge"]))
          .max(4)
          .default([])
          .meta(live("Events before which the hooks are waited for. Each lengthens the blackout.")),
        beforeMs: z
          .int()
          .min(1)
          .max(1000)
          .default(50)
          .meta(live("How long all hooks together are waited for before one event; then it goes on without them.")),
      })
      .prefault({})
      .describe("Programs of your own around the steps of takeovers, hand-overs and changes of role."),
    paths: z
      .strictObject({
        state: directory.default("/var/lib/tandem").describe("What outlives a reboot: the epoch and the journal."),
        run: directory
          .default("/run/tandem")
          .describe("The sockets: agent.sock for operators, app.sock for applications."),
        bpf: directory.default("/sys/fs/bpf/tandem").describe("Where the data plane is pinned, on a BPF file system."),
      })
      .prefault({})
      .describe("Where this router keeps its things."),
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
      if (entry.command !== undefined && entry.mode !== "delivered")
        issue(["services", index, "command"], 'needs mode "delivered": a new program knows nothing of the session');
      if (entry.command !== undefined && !entry.command[0]?.startsWith("/"))
        issue(["services", index, "command", 0], "must be an absolute path");
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
    const owners = new Map<string, string>();
    for (const [name, { mirror, uplinks }] of Object.entries({ a, b })) {
      const own = (path: (string | number)[], address: string): void => {
        const owner = owners.get(address);
        if (owner !== undefined) issue(["pair", "routers", name, ...path, "address"], `is ${owner}'s, too`);
        owners.set(address, `router ${name}`);
      };
      own(["mirror"], mirror.address);
      uplinks.forEach(({ address }, index) => {
        own(["uplinks", index], address);
      });
    }
    config.services.forEach(({ addresses }, index) => {
      addresses.forEach((address, at) => {
        const owner = owners.get(address);
        if (owner !== undefined)
          issue(["services", index, "addresses", at], `is ${owner}'s own: a service address is on both routers`);
      });
    });
    if (a.uplinks.length !== b.uplinks.length)
      issue(["pair", "routers", "b", "uplinks"], "must list as many uplinks as router a, in the same order");
    const { arbiter } = config.pair;
    if (arbiter.kind !== "pair" && config.pair.onSilence === "mute")
      issue(
        ["pair", "onSilence"],
        `is for arbiter pair only: with ${arbiter.kind} that decides who may go on; leave it out`,
      );
    if (arbiter.kind === "etcd" && (arbiter.tls?.cert === undefined) !== (arbiter.tls?.key === undefined))
      issue(["pair", "arbiter", "tls"], "needs both cert and key, or neither");
    if (config.pair.heartbeat.deadMs < 3 * config.pair.heartbeat.intervalMs)
      issue(
        ["pair", "heartbeat", "deadMs"],
        "must be at least three heartbeat intervals, or one lost frame is a failover",
      );
    // A takeover that takes longer than the voice that it began with would be in vain.
    if (config.hooks.before.length * config.hooks.beforeMs > config.pair.heartbeat.controllerMs / 2)
      issue(["hooks", "beforeMs"], "all before-hooks together must take at most half of pair.heartbeat.controllerMs");
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
