// Everybody lives, and something is short: one direction of a link, most frames, the processor's time, an
// application's memory, or clocks that jump. At the peer one voice, no reset, and every byte.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { addressPlan, type ImpairPlace, type RouterName } from "../../src/lab/lab.js";
import { processesIn } from "../../src/lab/namespaces.js";
import type { TakeoverReport } from "../../src/takeover/report.js";
import { assertNoResets, assertOneVoice, assertSoleVoice, Duo, skip } from "./duo.js";

const { v4, v6 } = addressPlan.service;

/** The one that has the voice, while the other protects it. */
async function protectedActive(duo: Duo): Promise<[RouterName, RouterName]> {
  const { role } = await duo.pair.status("a");
  const [active, standby]: [RouterName, RouterName] = role === "active" || role === "solo" ? ["a", "b"] : ["b", "a"];
  await duo.untilProtected(active, standby);
  return [active, standby];
}

describe("links that carry one way only, or lose most", { skip }, () => {
  let duo: Duo;
  before(async () => {
    duo = await Duo.start({ mirror: "switch" });
  });
  after(() => duo?.lab.destroy());

  const hurt = (place: ImpairPlace, loss: number): void => duo.lab.impair(place, loss > 0 ? { loss } : {});

  /** Of both routers, in order. */
  const epochs = () => Promise.all((["a", "b"] as const).map(async (router) => (await duo.pair.status(router)).epoch));

  /** While `place` loses all frames, and after: only the active speaks. Resolves with its epochs, before and after. */
  async function oneWay(direction: "lan" | "mirror", to: "active" | "standby", during: () => Promise<void>) {
    const [active, standby] = await protectedActive(duo);
    const sessions = await duo.openSessions(standby);
    const capture = await duo.captureVoice();
    await delay(200);
    const former = await epochs();
    const router = to === "active" ? active : standby;
    const place: ImpairPlace = direction === "lan" ? `to-${router}` : `mirror-to-${router}`;
    hurt(place, 1);
    await during();
    const { seen, lost } = duo.lab.impaired(place);
    assert.ok(seen > 0 && lost === seen, `${lost} of ${seen} lost`);
    hurt(place, 0);
    await duo.untilProtected(active, standby);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertSoleVoice(summary, duo.mac(active));
    assertNoResets(summary);
    return { former, now: await epochs() };
  }

  for (const to of ["standby", "active"] as const)
    test(`nothing reaches the ${to} from the LAN: the mirror link carries the heartbeat, and nobody takes over`, async () => {
      const { former, now } = await oneWay("lan", to, () => delay(1500));
      assert.deepEqual(now, former);
    });

  for (const to of ["standby", "active"] as const)
    test(`the mirror link carries nothing to the ${to}: the standby surrenders, and the active goes on alone`, async () => {
      await oneWay("mirror", to, () =>
        duo.pair.until("one speaks alone", async () =>
          (await Promise.all([duo.pair.status("a"), duo.pair.status("b")])).some(({ role }) => role === "solo"),
        ),
      );
    });

  test("both links lose a quarter of all frames: slower, and nothing else", async () => {
    const [active, standby] = await protectedActive(duo);
    const sessions = await duo.openSessions(standby);
    const capture = await duo.captureVoice();
    const former = await epochs();
    for (const place of ["lan", "mirror"] as const) hurt(place, 0.25);
    await delay(4000);
    for (const place of ["lan", "mirror"] as const) assert.ok(duo.lab.impaired(place).lost > 100);
    for (const place of ["lan", "mirror"] as const) hurt(place, 0);
    assert.deepEqual(await epochs(), former);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertSoleVoice(summary, duo.mac(active));
    assertNoResets(summary);
  });
});

const controllers = "/sys/fs/cgroup";
const lacks = (controller: string, file: string): string | false =>
  skip || (existsSync(path.join(controllers, controller, file)) ? false : `needs cgroup v1's ${controller} controller`);

/** A control group of the test's own. */
class Group {
  readonly directory: string;

  constructor(private readonly controller: "cpu" | "memory") {
    this.directory = path.join(controllers, controller, `tandem-test-${process.pid}`);
    mkdirSync(this.directory);
  }

  set(file: string, value: number): void {
    writeFileSync(path.join(this.directory, file), String(value));
  }

  read(file: string): string {
    return readFileSync(path.join(this.directory, file), "latin1");
  }

  take(pids: number[]): void {
    for (const pid of pids) this.set("cgroup.procs", pid);
  }

  /** Its processes go back to where the test is. */
  remove(): void {
    const of = readFileSync("/proc/self/cgroup", "latin1").split("\n");
    const own = of.find((line) => line.split(":")[1]?.split(",").includes(this.controller))?.split(":")[2] ?? "/";
    for (const pid of this.read("cgroup.procs").split("\n").filter(Boolean))
      writeFileSync(path.join(controllers, this.controller, own, "cgroup.procs"), pid);
    rmdirSync(this.directory);
  }
}

describe("a router without time or memory", { skip }, () => {
  let duo: Duo;
  let group: Group | undefined;
  before(async () => {
    duo = await Duo.start();
  });
  afterEach(() => {
    group?.remove();
    group = undefined;
  });
  after(() => duo?.lab.destroy());

  /** For so long the router's processes get a thousandth of one processor; its pulse, too, unless it is `spared`. */
  async function starve(router: RouterName, milliseconds: number, spared: boolean): Promise<void> {
    group = new Group("cpu");
    const rt = existsSync(path.join(group.directory, "cpu.rt_runtime_us"));
    if (rt) group.set("cpu.rt_runtime_us", 50_000);
    group.take(processesIn(duo.lab.namespace(router)));
    if (rt && !spared) group.set("cpu.rt_runtime_us", 1);
    group.set("cpu.cfs_period_us", 1_000_000);
    group.set("cpu.cfs_quota_us", 1000);
    await delay(milliseconds);
    assert.match(group.read("cpu.stat"), /nr_throttled [1-9]/);
    group.remove();
    group = undefined;
  }

  const autogroup = (pid: number): string => `/proc/${pid}/autogroup`;
  test("where processes are grouped by session, the agent that records goes before the others, the active one does not", {
    skip: existsSync(autogroup(process.pid)) ? false : "no autogroup here",
  }, () => {
    const niceOf = (router: RouterName): string => {
      const { pid } = duo.pair.agents[router] ?? assert.fail("no agent");
      return readFileSync(autogroup(pid), "utf8")
        .replace(/^.* nice /, "")
        .trim();
    };
    assert.deepEqual([niceOf("a"), niceOf("b")], ["0", "-10"]);
  });

  test("the active's programs starve, its pulse does not, for less than controllerMs: it stays the active", {
    skip: lacks("cpu", "cpu.cfs_quota_us"),
  }, async () => {
    const [active, standby] = await protectedActive(duo);
    const sessions = await duo.openSessions(standby);
    const capture = await duo.captureVoice();
    await starve(active, 1200, true);
    await duo.untilProtected(active, standby);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertSoleVoice(summary, duo.mac(active));
    assertNoResets(summary);
  });

  for (const [what, milliseconds, spared] of [
    ["its programs, for longer than controllerMs", 5000, true],
    ["its pulse, too, for less than controllerMs", 1500, false],
  ] as const)
    test(`the active starves, ${what}: the standby takes over, and the old active says nothing any more`, {
      skip: lacks("cpu", "cpu.cfs_quota_us"),
    }, async () => {
      const [active, standby] = await protectedActive(duo);
      const sessions = await duo.openSessions(standby);
      const capture = await duo.captureVoice();
      const [tookOver] = await Promise.all([
        duo.pair.untilRole(standby, "solo").then(() => true),
        starve(active, milliseconds, spared),
      ]);
      assert.ok(tookOver);
      await duo.untilProtected(standby, active);
      await sessions.assertExact();
      const summary = await capture.stop();
      assertOneVoice(summary, duo.mac(active), duo.mac(standby));
      assertNoResets(summary);
    });

  test("the standby starves: the active speaks, with it or alone, and nobody else", {
    skip: lacks("cpu", "cpu.cfs_quota_us"),
  }, async () => {
    const [active, standby] = await protectedActive(duo);
    const sessions = await duo.openSessions(standby);
    const capture = await duo.captureVoice();
    await starve(standby, 2500, false);
    await duo.untilProtected(active, standby);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertSoleVoice(summary, duo.mac(active));
    assertNoResets(summary);
  });

  test("the kernel kills the application for want of memory: the standby takes over, silently", {
    skip: lacks("memory", "memory.limit_in_bytes"),
  }, async () => {
    const [active, standby] = await protectedActive(duo);
    const sessions = await duo.openSessions(standby);
    const capture = await duo.captureVoice();
    const server = duo.pair.servers[active];
    assert.ok(server);
    group = new Group("memory");
    group.set("memory.limit_in_bytes", 256 * 1024);
    group.take([server.pid]);
    await duo.pair.untilRole(standby, "solo");
    assert.match(group.read("memory.oom_control"), /oom_kill [1-9]/);
    const { cause, lost } = (await duo.pair.status(standby)).lastTakeover as TakeoverReport;
    assert.equal(cause, "An application of the active crashed");
    assert.equal(lost.count, 0);
    await delay(300);
    const { flagged } = await capture.stop();
    assert.deepEqual(
      flagged.filter(({ from, fin, rst }) => (from === v4 || from === v6) && (fin || rst)),
      [],
    );
    await sessions.assertExact();
    await duo.pair.startServer(active, true);
    await duo.untilProtected(standby, active);
  });
});

/** Shifts CLOCK_REALTIME for every process of a network namespace by the nanoseconds in the file with its number: the
 * host's own clock is everybody's, and stays as it is. */
const shiftedClock = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;

__attribute__((constructor)) static void find(void)
{
	const char *directory = getenv("SHIFTED_CLOCK");
	struct stat namespace;
	char file[512];
	void *map;
	int fd;

	if (!directory || stat("/proc/self/ns/net", &namespace))
		return;
	snprintf(file, sizeof(file), "%s/%lu", directory, (unsigned long)namespace.st_ino);
	fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	map = mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		shift = map;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int failed = syscall(SYS_clock_gettime, clock, now);

	if (!failed && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += *shift / 1000000000;
	return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
	struct timespec precise;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &precise);
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *now)
{
	struct timespec precise;

	clock_gettime(CLOCK_REALTIME, &precise);
	if (now)
		*now = precise.tv_sec;
	return precise.tv_sec;
}
`;

describe("clocks that jump", { skip }, () => {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-clock-"));
  let duo: Duo;

  const file = (router: RouterName): string =>
    path.join(directory, String(statSync(`/run/netns/${duo.lab.namespace(router)}`).ino));

  function jump(router: RouterName, seconds: number): void {
    const shift = Buffer.alloc(8);
    shift.writeBigInt64LE(BigInt(seconds) * 1_000_000_000n);
    writeFileSync(file(router), shift, { flag: "r+" });
  }

  before(async () => {
    writeFileSync(path.join(directory, "clock.c"), shiftedClock);
    const library = path.join(directory, "clock.so");
    execFileSync("gcc", [
      "-shared",
      "-fPIC",
      "-O1",
      "-Wall",
      "-Werror",
      "-o",
      library,
      path.join(directory, "clock.c"),
    ]);
    process.env.SHIFTED_CLOCK = directory;
    process.env.LD_PRELOAD = library;
    duo = await Duo.start({}, {}, async (lab) => {
      for (const router of ["a", "b"] as const) {
        const { ino } = statSync(`/run/netns/${lab.namespace(router)}`);
        writeFileSync(path.join(directory, String(ino)), Buffer.alloc(8));
      }
      return { options: {} };
    });
  });
  after(() => {
    delete process.env.LD_PRELOAD;
    delete process.env.SHIFTED_CLOCK;
    duo?.lab.destroy();
    rmSync(directory, { recursive: true, force: true });
  });

  const read = (router: RouterName): number =>
    Number(duo.lab.run(router, [process.execPath, "-p", "Date.now()"])) - Date.now();

  test("back and forth by hours, apart from each other: no takeover, no reset, every byte", async () => {
    const hour = 3600;
    const { pair } = duo;
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    const former = await Promise.all([pair.status("a"), pair.status("b")]);
    for (const [a, b] of [
      [hour, 0],
      [hour, -hour],
      [-5 * hour, 24 * hour],
      [0, 0],
    ] as const) {
      jump("a", a);
      jump("b", b);
      await delay(500);
      assert.ok(Math.abs(read("a") - a * 1000) < hour * 500, "the processes of a see it");
      assert.ok(Math.abs(read("b") - b * 1000) < hour * 500, "the processes of b see it");
    }
    const now = await Promise.all([pair.status("a"), pair.status("b")]);
    assert.deepEqual(
      now.map(({ role, epoch }) => [role, epoch]),
      former.map(({ role, epoch }) => [role, epoch]),
    );
    await sessions.assertExact();
    const summary = await capture.stop();
    assertSoleVoice(summary, duo.mac("a"));
    assertNoResets(summary);
  });

  test("a standby whose clock is a day ahead takes over as any other, and an active that returns an hour behind joins", async () => {
    jump("b", 24 * 3600);
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    duo.lab.freeze("a");
    await duo.pair.untilRole("b", "solo");
    jump("a", -3600);
    duo.lab.thaw("a");
    await duo.untilProtected("b", "a");
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("a"), duo.mac("b"));
    assertNoResets(summary);
  });
});
