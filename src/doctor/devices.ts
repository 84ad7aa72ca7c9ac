// The devices of this router: links, MTUs, XDP modes, offloads, and other programs in the way.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { z } from "zod";
import { type LinkInfo, native } from "../../addon/native.js";
import { TD_OVERHEAD_IP } from "../abi.gen.js";
import type { Config } from "../config/schema.js";
import { errnoOf, sentenceOf } from "../errors.js";
import { formatMac } from "../net/addresses.js";
import { tcPriority } from "../net/dataplane.js";
import { type Finding, found, ok } from "./finding.js";

export interface Device {
  name: string;
  /** What it is to Tandem. */
  use: "mirror" | "uplink";
  link: LinkInfo | null;
}

export function devicesOf(config: Config): Device[] {
  const own = config.pair.routers[config.router];
  const links = new Map(native.links().map((link) => [link.name, link]));
  return [
    { name: own.mirror.device, use: "mirror" as const },
    ...own.uplinks.map(({ device }) => ({ name: device, use: "uplink" as const })),
  ].map((each) => ({ ...each, link: links.get(each.name) ?? null }));
}

export function checkLinks(devices: Device[]): Finding[] {
  return devices.map(({ name, use, link }) => {
    if (link === null)
      return found("problem", "link", `There is no device ${name} (${use}).`, "Correct its name; ip link lists them");
    if (!link.up) return found("problem", "link", `${name} (${use}) is down.`, `ip link set ${name} up`);
    if (link.mac.length !== 6)
      return found("problem", "link", `${name} (${use}) is no Ethernet device.`, "Name another device");
    if (!link.carrier)
      return found("warning", "link", `${name} (${use}) has no carrier.`, `Check its cable; ip -s link show ${name}`);
    return ok("link", `${name} (${use}) is up.`);
  });
}

export function checkAddresses(config: Config, devices: Device[]): Finding[] {
  const own = config.pair.routers[config.router];
  const wanted = [own.mirror, ...own.uplinks].map(({ device, address }) => ({ device, address }));
  const present = native.addresses();
  return wanted.flatMap(({ device, address }) => {
    const link = devices.find(({ name }) => name === device)?.link;
    if (!link) return [];
    return present.some(({ ifindex, ip }) => ifindex === link.ifindex && ip === address)
      ? []
      : [
          found(
            "problem",
            "address",
            `${address} is not on ${device}, which the configuration says.`,
            `ip address add ${address}/${address.includes(":") ? 64 : 24} dev ${device}`,
          ),
        ];
  });
}

/** A device that has it itself cannot tell this router's own traffic from the service's. */
export function checkVirtualMac({ virtualMac }: Pick<Config, "virtualMac">, links: LinkInfo[]): Finding[] {
  if (virtualMac === undefined) return [];
  const owners = links.filter(({ mac }) => formatMac(mac) === virtualMac).map(({ name }) => name);
  if (owners.length === 0) return [ok("virtual-mac", `${virtualMac} is the MAC of no device.`)];
  return [
    found(
      "problem",
      "virtual-mac",
      `${owners.join(", ")} has the virtual MAC ${virtualMac} for its own.`,
      "Choose another virtualMac, the same on both routers; devices keep their own",
    ),
  ];
}

export function checkMtus(devices: Device[]): Finding[] {
  const mirror = devices.find(({ use }) => use === "mirror")?.link;
  if (!mirror) return [];
  const short = devices.flatMap(({ use, link }) =>
    use === "uplink" && link && mirror.mtu < link.mtu + TD_OVERHEAD_IP
      ? [
          found(
            "problem",
            "mtu",
            `The mirror link's MTU is ${mirror.mtu}; uplink ${link.name} (MTU ${link.mtu}) needs ${link.mtu + TD_OVERHEAD_IP}.`,
            `ip link set ${mirror.name} mtu ${link.mtu + TD_OVERHEAD_IP}    # on both routers; 4 more for each VLAN tag`,
          ),
        ]
      : [],
  );
  return short.length > 0 ? short : [ok("mtu", `The mirror link (MTU ${mirror.mtu}) carries the longest frames.`)];
}

/** Asks the devices that a running agent uses; tries, for a moment, those that nobody uses. */
export function checkXdp(config: Config, devices: Device[], programs: ReadonlyMap<string, number>): Finding[] {
  const ours = existsSync(config.paths.bpf) && readdirSync(config.paths.bpf).length > 0;
  return devices.flatMap(({ name, use, link }) => {
    if (!link || (use === "uplink" && config.xdp === "generic")) return [];
    const { programId, mode } = native.bpfXdpQuery(link.ifindex);
    if (programId !== 0 && ours) {
      return mode === "generic" && config.xdp === "native"
        ? [found("warning", "xdp", `${name} runs XDP in generic mode: slow.`, "Restart the agent; or say xdp: generic")]
        : [ok("xdp", `${name} runs our XDP program in ${mode} mode.`)];
    }
    if (programId !== 0)
      return [
        found(
          "problem",
          "xdp",
          `Another XDP program (id ${programId}) is on ${name}.`,
          `bpftool prog show id ${programId}; ip link set dev ${name} xdp off`,
        ),
      ];
    const program = programs.get(use === "mirror" ? "xdp_mirror" : "xdp_uplink");
    if (program === undefined) return [];
    try {
      const attached = native.bpfXdpAttach(link.ifindex, program, config.xdp);
      native.bpfLinkDetach(attached);
      native.closeFd(attached);
      return [ok("xdp", `${name} takes our XDP program in ${config.xdp} mode.`)];
    } catch (error) {
      return [
        errnoOf(error) === "EOPNOTSUPP"
          ? found("problem", "xdp", `The driver of ${name} has no native XDP.`, "Say xdp: generic in the configuration")
          : found(
              "problem",
              "xdp",
              `${name} does not take the XDP program: ${sentenceOf(error)}.`,
              `ethtool -K ${name} lro off; ip link set ${name} mtu 3498    # most drivers take no more`,
            ),
      ];
    }
  });
}

const tcFilters = z.array(z.looseObject({ pref: z.number().optional(), kind: z.string().optional() }));

/** Filters before ours may take packets away from it. */
export function checkTc(devices: Device[]): Finding[] {
  return devices.flatMap(({ name, link }) => {
    if (!link) return [];
    return ["ingress", "egress"].flatMap((where) => {
      const text = run("tc", ["-j", "filter", "show", "dev", name, where]);
      if (text === null) return [];
      const others = tcFilters.parse(JSON.parse(text || "[]")).filter(({ pref }) => pref !== tcPriority);
      const before = others.filter(({ pref = 0 }) => pref > 0 && pref < tcPriority);
      if (before.length === 0) return [];
      const prefs = [...new Set(before.map(({ pref }) => pref))].join(", ");
      return [
        found(
          "warning",
          "tc",
          `Other filters run before ours on ${name} ${where} (priority ${prefs}); they must let the services' segments pass.`,
          `tc filter show dev ${name} ${where}`,
        ),
      ];
    });
  });
}

/** The offloads that hide from XDP and TC what they must see. */
export function checkOffloads(devices: Device[]): Finding[] {
  return devices.flatMap(({ name, link }) => {
    if (!link) return [];
    const features = run("ethtool", ["-k", name]);
    if (features === null)
      return [
        found("note", "offloads", `The offloads of ${name} are not known: no ethtool.`, "apt-get install ethtool"),
      ];
    const on = (feature: string): boolean => new RegExp(`^${feature}: on`, "m").test(features);
    const wrong: Finding[] = [];
    if (on("large-receive-offload"))
      wrong.push(
        found("problem", "offloads", `${name} merges segments in hardware (LRO).`, `ethtool -K ${name} lro off`),
      );
    if (on("rx-vlan-offload") && link.kind !== "veth")
      wrong.push(
        found(
          "warning",
          "offloads",
          `${name} takes VLAN tags off in hardware: XDP does not see them.`,
          `ethtool -K ${name} rxvlan off    # if tagged frames of the services come in by it`,
        ),
      );
    return wrong.length > 0 ? wrong : [ok("offloads", `The offloads of ${name} are right.`)];
  });
}

function run(program: string, argumentList: string[]): string | null {
  try {
    return execFileSync(program, argumentList, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  } catch {
    return null;
  }
}
