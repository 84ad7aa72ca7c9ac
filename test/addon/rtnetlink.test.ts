// rtnetlink.cc in a namespace of its own, compared with what iproute2 says.

import assert from "node:assert/strict";
import test from "node:test";
import { native } from "../../addon/native.js";
import { inOwnNamespace, run } from "./fixture.js";

const json = (...args: string[]): Record<string, unknown>[] =>
  JSON.parse(run("ip", "-json", ...args)) as Record<string, unknown>[];

inOwnNamespace(import.meta.url, "rtnetlink, in a namespace of its own", () => {
  run("ip", "link", "add", "left", "mtu", "1400", "type", "veth", "peer", "name", "right");
  run("ip", "link", "set", "left", "up");
  run("ip", "link", "set", "right", "up");

  test("links are what iproute2 says they are", () => {
    const expected = json("link", "show");
    const links = native.links();
    assert.deepEqual(
      links.map((link) => link.name),
      expected.map((link) => link.ifname),
    );
    for (const [index, link] of links.entries()) {
      assert.equal(link.ifindex, expected[index]?.ifindex);
      assert.equal(link.mtu, expected[index]?.mtu);
      assert.equal([...link.mac].map((byte) => byte.toString(16).padStart(2, "0")).join(":"), expected[index]?.address);
    }
    const left = links.find((link) => link.name === "left");
    assert.equal(left?.kind, "veth");
    assert.equal(left?.type, 1);
    assert.equal(links.find((link) => link.name === "lo")?.type, 772);
  });

  test("a link is up as the administrator set it, whatever its carrier", () => {
    const up = (name: string): boolean | undefined => native.links().find((link) => link.name === name)?.up;
    run("ip", "link", "set", "right", "down");
    assert.deepEqual([up("left"), up("right")], [true, false]);
    run("ip", "link", "set", "right", "up");
    assert.equal(up("right"), true);
  });

  test("addresses come and go, IPv6 usable at once", () => {
    const left = native.links().find((link) => link.name === "left")?.ifindex ?? 0;
    for (const [ip, prefix] of [
      ["192.0.2.1", 24],
      ["2001:db8::1", 64],
    ] as const) {
      native.addressAdd(left, ip, prefix);
      assert.ok(
        native
          .addresses()
          .some((address) => address.ifindex === left && address.ip === ip && address.prefix === prefix),
      );
      assert.throws(() => native.addressAdd(left, ip, prefix), { code: "EEXIST" });
    }
    assert.doesNotMatch(run("ip", "-6", "address", "show", "dev", "left", "to", "2001:db8::1"), /tentative/);
    native.addressAdd(left, "192.0.2.9", 32);
    native.addressDelete(left, "192.0.2.9", 32);
    assert.ok(!native.addresses().some((address) => address.ip === "192.0.2.9"));
    assert.throws(() => native.addressDelete(left, "192.0.2.9", 32), { code: "EADDRNOTAVAIL" });
    assert.throws(() => native.addressAdd(left, "not an address", 32), { code: "EINVAL" });
    assert.throws(() => native.addressAdd(left, "192.0.2.9", 33), { code: "EINVAL" });
    assert.throws(() => native.addressAdd(99999, "192.0.2.9", 32), { code: "ENODEV" });
  });

  test("routes with and without a gateway, in both families", () => {
    const left = native.links().find((link) => link.name === "left")?.ifindex ?? 0;
    assert.deepEqual(native.route("192.0.2.7"), { ifindex: left, gateway: null, source: "192.0.2.1" });
    assert.equal(native.route("198.51.100.1"), null);
    for (const type of ["unreachable", "prohibit", "blackhole"]) {
      run("ip", "route", "add", type, "198.51.100.2/32");
      assert.equal(native.route("198.51.100.2"), null, type);
      run("ip", "route", "delete", type, "198.51.100.2/32");
    }
    run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.7");
    assert.deepEqual(native.route("198.51.100.1", "192.0.2.1"), { ifindex: left, gateway: "192.0.2.7", source: null });
    run("ip", "route", "add", "203.0.113.0/24", "via", "inet6", "2001:db8::7", "dev", "left");
    assert.equal(native.route("203.0.113.5")?.gateway, "2001:db8::7");
    const v6 = native.route("2001:db8::7");
    assert.equal(v6?.ifindex, left);
    assert.equal(v6?.gateway, null);
  });

  test("neighbours: known, unknown, failed", () => {
    const left = native.links().find((link) => link.name === "left")?.ifindex ?? 0;
    assert.equal(native.neighbour(left, "192.0.2.50"), null);
    run("ip", "neigh", "replace", "192.0.2.50", "lladdr", "02:00:00:00:00:50", "dev", "left");
    run("ip", "neigh", "replace", "2001:db8::50", "lladdr", "02:00:00:00:00:51", "dev", "left");
    assert.deepEqual(native.neighbour(left, "192.0.2.50")?.mac, Uint8Array.of(2, 0, 0, 0, 0, 0x50));
    assert.equal(native.neighbour(left, "2001:db8::50")?.mac[5], 0x51);
    run("ip", "neigh", "replace", "192.0.2.51", "dev", "left", "nud", "failed");
    assert.equal(native.neighbour(left, "192.0.2.51"), null);
  });

  test("the namespace's cookie is its own, and the capabilities are told", () => {
    const cookie = native.netnsCookie();
    assert.equal(native.netnsCookie(), cookie);
    assert.ok(cookie > 1n, "1 is the first namespace");
    assert.ok(native.capabilities().effective & (1n << 12n), "CAP_NET_ADMIN");
  });
});
