// The command line against real agents: one lab with a router pair under load, and every command that asks them.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parse, stringify } from "yaml";
import type { z } from "zod";
import { answers } from "../../src/cli/answers.js";
import { addressPlan, type RouterName } from "../../src/lab/lab.js";
import { captureCommand, type sessionsCommand, type switchoverCommand } from "../../src/observe/commands.js";
import type { AgentStatus } from "../../src/observe/status.js";
import { type Chats, Duo, skip } from "../agent/duo.js";

const program = fileURLToPath(new URL("../../src/cli/tandem.js", import.meta.url));

interface Run {
  stdout: string;
  stderr: string;
  code: number | null;
}

suite("command line in a lab", { skip }, () => {
  let duo: Duo;
  let chats: Chats;

  before(async () => {
    duo = await Duo.start();
    chats = await duo.openSessions("b");
  });
  after(() => duo?.lab.destroy());

  /** In the router's network namespace, without holding up what goes on in this process. */
  function tandem(router: RouterName, ...words: string[]): Promise<Run> {
    const configuration = ["--config", duo.pair.configFile(router)];
    const inside = [
      `--net=/run/netns/${duo.lab.namespace(router)}`,
      process.execPath,
      program,
      ...words,
      ...configuration,
    ];
    return new Promise((resolve) => {
      const child = spawn("nsenter", inside, { stdio: ["ignore", "pipe", "pipe"] });
      const run: Run = { stdout: "", stderr: "", code: null };
      child.stdout.on("data", (data: Buffer) => {
        run.stdout += data.toString();
      });
      child.stderr.on("data", (data: Buffer) => {
        run.stderr += data.toString();
      });
      child.on("close", (code) => resolve({ ...run, code }));
    });
  }

  /** With --json: the answer, checked with the schema that is documented for the command. */
  async function answer<T>(router: RouterName, ...words: string[]): Promise<T> {
    const { stdout, stderr, code } = await tandem(router, ...words, "--json");
    assert.equal(code, 0, stderr);
    const schema = answers[words.filter((word) => !word.startsWith("-"))[0] ?? ""];
    assert.ok(schema);
    return schema.parse(JSON.parse(stdout)) as T;
  }
  type Sessions = z.output<typeof sessionsCommand.result>;

  test("status: both routers tell the same story", async () => {
    const [a, b] = await Promise.all([answer<AgentStatus>("a", "status"), answer<AgentStatus>("b", "status")]);
    assert.deepEqual([a.role, b.role, a.partner?.role, b.partner?.role], ["active", "standby", "standby", "active"]);
    assert.deepEqual([a.gate, a.agreed, b.agreed], ["reflect", true, true]);
    assert.deepEqual(
      [a.sessions, b.sessions],
      [8, 8].map((ready) => ({ total: ready, ready, notReady: {} })),
    );
    assert.ok(a.paths.every(({ up }) => up));
    const { stdout } = await tandem("b", "status");
    assert.match(stdout, /^pair +a active \| b standby$/m);
    assert.match(stdout, /^sessions +8 ready, 0 not ready$/m);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: there is to be none
    assert.doesNotMatch(stdout, /\u001b/, "no colours where there is no terminal");
  });

  test("sessions: both directions of each, and filters", async () => {
    const all = await answer<Sessions>("b", "sessions");
    assert.deepEqual([all.keptBy, all.total, all.sessions.length], ["b", 8, 8]);
    for (const session of all.sessions) {
      assert.equal(session.ready, true);
      assert.equal(session.service, "echo");
      assert.ok(session.input.firstSequence !== null && session.output.firstSequence !== null);
      assert.ok(session.input.recorded >= session.input.vouched);
      assert.ok(session.output.recorded >= session.output.acknowledged);
      assert.equal(session.resumePoint?.source, "live");
      assert.ok(Date.parse(session.since) <= Date.now());
    }
    const { v6 } = addressPlan.peer;
    const ofPeer = await answer<Sessions>("b", "sessions", "--peer", v6, "--limit", "3");
    assert.deepEqual([ofPeer.total, ofPeer.sessions.length], [4, 3]);
    assert.equal((await answer<Sessions>("b", "sessions", "--peer", all.sessions[0]?.peer ?? "")).total, 1);
    assert.equal((await answer<Sessions>("b", "sessions", "--service", "web")).total, 0);
    assert.equal((await answer<Sessions>("b", "sessions", "--not-ready")).total, 0);
    // The active asks the standby.
    const asked = await answer<Sessions>("a", "sessions", "--peer", v6);
    assert.deepEqual([asked.keptBy, asked.total], ["b", 4]);
    const id = asked.sessions[0]?.id;
    const one = await answer<{ id: number; ready: boolean }>("a", "session", String(id));
    assert.deepEqual([one.id, one.ready], [id, true]);
    assert.match((await tandem("b", "sessions")).stdout, /^ID +SERVICE +PEER/);
  });

  test("what cannot be answered says so, with its exit code", async () => {
    const questions = [
      ["b", ["sessions", "--service", "nonesuch"], 2, /SERVICE_UNKNOWN/],
      ["b", ["sessions", "--peer", "nobody"], 2, /PEER_UNREADABLE/],
      ["b", ["session", "999999"], 1, /SESSION_UNKNOWN/],
      ["a", ["session", "999999"], 1, /SESSION_UNKNOWN/],
      ["a", ["sessions", "--service", "nonesuch"], 2, /SERVICE_UNKNOWN/],
      ["a", ["capture", "1", "--write", "-"], 1, /not the standby/],
      ["a", ["resync", "--yes"], 5, /NOT_STANDBY/],
      ["b", ["resync", "--yes"], 5, /SESSIONS_READY/],
      ["b", ["switchover"], 5, /NOT_CONFIRMED/],
      ["a", ["detach"], 5, /AGENT_RUNNING/],
      ["b", ["capture", "999999", "--write", "-"], 1, /SESSION_UNKNOWN/],
    ] as const;
    await Promise.all(
      questions.map(async ([router, words, code, pattern]) => {
        const run = await tandem(router, ...words);
        assert.match(run.stderr, pattern);
        assert.equal(run.code, code, run.stderr);
      }),
    );
    assert.equal((await answer<AgentStatus>("a", "status")).role, "active", "nothing was done");
  });

  test("capture: one session's frames, both ways, as tshark reads them", async () => {
    const [first] = (await answer<Sessions>("b", "sessions")).sessions;
    assert.ok(first);
    const file = path.join(duo.lab.directory, "session.pcapng");
    const { code, stderr } = await tandem("b", "capture", String(first.id), "--write", file, "--count", "12");
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^12 frames captured, 0 segments dropped\.$/m);
    assert.equal(statSync(file).mode & 0o777, 0o600, "what people said is nobody else's");
    const fields = ["frame.packet_flags_direction", "tcp.srcport", "tcp.dstport", "tcp.len", "tcp.checksum.status"];
    const list = duo.lab.run("lan", [
      ...["tshark", "-r", file, "-o", "tcp.check_checksum:TRUE", "-T", "fields"],
      ...fields.flatMap((field) => ["-e", field]),
    ]);
    const rows = list
      .trim()
      .split("\n")
      .map((line) => line.split("\t"));
    assert.equal(rows.length, 12);
    const port = first.peer.split(":").at(-1);
    for (const [direction, source, destination, , checksum] of rows) {
      assert.equal(Number(direction) === 1 ? source : destination, port);
      assert.equal(checksum, "1");
    }
    for (const direction of [1, 2])
      assert.ok(
        rows.some(([way, , , length]) => Number(way) === direction && Number(length) > 0),
        "data both ways",
      );
    assert.ok(captureCommand.item);
  });

  test("history: the decisions, the newest last", async () => {
    const { entries } = await answer<{ entries: { sentence: string }[] }>("b", "history", "--limit", "2");
    assert.equal(entries.length, 2);
    assert.match(entries[1]?.sentence ?? "", /stands by/);
    assert.match((await tandem("b", "history")).stdout, /epoch \d+ {2}This router stands by/);
  });

  test("doctor: a healthy pair has no problem", async () => {
    for (const router of ["a", "b"] as const) {
      const { findings } = await answer<{ findings: { check: string; level: string; what: string }[] }>(
        router,
        "doctor",
      );
      assert.deepEqual(
        findings.filter(({ level }) => level !== "ok"),
        [],
      );
      assert.match(
        findings.map(({ what }) => what).join("\n"),
        /runs our XDP program in native mode[\s\S]*configurations agree/,
      );
    }
  });

  test("reload: says what differs, takes over what it can, refuses by name what it cannot", async () => {
    const file = duo.pair.configFile("b");
    const original = readFileSync(file, "utf8");
    const change = (fields: Record<string, unknown>) =>
      writeFileSync(file, stringify({ ...(parse(original) as object), ...fields }));
    change({ quarantineMs: 30_000 });
    const dry = await tandem("b", "reload", "--dry-run");
    assert.match(dry.stdout, /^ {2}quarantineMs: 60000 -> 30000$/m);
    assert.match((await tandem("b", "reload")).stdout, /has taken it over/);
    assert.match((await tandem("b", "reload")).stdout, /^Nothing differs/);
    change({ quarantineMs: 20_000, recorder: { totalBytes: 1 << 28 } });
    const refused = await tandem("b", "reload");
    assert.equal(refused.code, 5);
    assert.match(refused.stdout, /totalBytes: 1073741824 -> 268435456 +needs a restart/);
    assert.match(refused.stderr, /CONFIG_RESTART/);
    writeFileSync(file, "router: b\n");
    // The command line reads the file as well: it cannot even ask.
    assert.equal((await tandem("b", "reload")).code, 3);
    change({ quarantineMs: 45_000 });
    duo.pair.agents.b?.signal("SIGHUP");
    await duo.pair.until("the signal did what the command does", async () =>
      (await tandem("b", "reload")).stdout.startsWith("Nothing differs"),
    );
    assert.equal((await answer<AgentStatus>("b", "status")).sessions.ready, 8, "and no session was lost by it");
  });

  test("watch: one document a line, through whatever happens", async () => {
    const child = spawn(
      "nsenter",
      [
        ...[`--net=/run/netns/${duo.lab.namespace("b")}`, process.execPath, program, "status", "--json"],
        ...["--watch", "0.1", "--config", duo.pair.configFile("b")],
      ],
      { stdio: ["ignore", "pipe", "ignore"] },
    );
    let text = "";
    for await (const data of child.stdout) {
      text += String(data);
      if (text.split("\n").length > 3) break;
    }
    child.kill();
    const [first = "", second = ""] = text.split("\n");
    for (const line of [first, second]) assert.equal((JSON.parse(line) as AgentStatus).role, "standby");
  });

  test("pause and resume", async () => {
    await answer("b", "pause", "--yes", "--reason", "change window");
    assert.match((await tandem("a", "status")).stdout, /^takeover +paused: change window$/m);
    assert.match((await tandem("b", "doctor", "--quiet")).stdout, /paused[\s\S]*fix: tandem resume/);
    await answer("b", "resume");
    assert.match((await tandem("b", "status")).stdout, /^takeover +automatic$/m);
  });

  test("switchover: the pair before and after, and no byte lost", async () => {
    const { stdout, stderr, code } = await tandem("a", "switchover", "--yes");
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^before\npair +a active \| b standby$/m);
    await chats.assertExact();
    await duo.untilProtected("b", "a");
    const back = await answer<z.output<typeof switchoverCommand.result>>("b", "switchover", "--yes", "--force");
    assert.deepEqual([back.before.role, back.before.epoch < back.after.epoch], ["active", true]);
    await duo.untilProtected("a", "b");
  });

  test("resync: the standby begins anew", async () => {
    await answer("b", "resync", "--yes", "--force");
    assert.equal((await answer<Sessions>("b", "sessions")).total, 0);
    const anew = await duo.openSessions("b");
    assert.equal((await answer<Sessions>("b", "sessions")).total, 8);
    await anew.assertExact();
  });

  test("an agent that is gone: exit code 4, and detach takes the rest away", async () => {
    duo.pair.agents.b?.signal("SIGTERM");
    await duo.pair.agents.b?.exited;
    assert.equal((await tandem("b", "status")).code, 4);
    const { findings } = JSON.parse((await tandem("b", "doctor", "--json")).stdout) as {
      findings: { check: string; level: string }[];
    };
    assert.deepEqual(
      findings.filter(({ level }) => level === "problem"),
      [],
    );
    assert.ok(findings.some(({ check, level }) => check === "agent" && level === "note"));
    await answer("b", "detach");
    // Nobody uses the devices now: doctor tries them.
    const tried = await tandem("b", "doctor");
    assert.match(tried.stdout, /mir0 takes our XDP program in native mode/);
    assert.equal(tried.code, 0, tried.stdout);
  });

  test("doctor: what is wrong is found, each with its fix", async () => {
    const { lab } = duo;
    lab.run("b", ["ip", "link", "set", "up0", "mtu", "1990"]);
    lab.run("b", ["sysctl", "-qw", "net.ipv6.conf.up0.disable_ipv6=1"]);
    lab.run("b", ["tc", "qdisc", "replace", "dev", "up0", "clsact"]);
    lab.run("b", ["tc", "filter", "add", "dev", "up0", "ingress", "prio", "5", "bpf", "bytecode", "1,6 0 0 0,"]);
    const { stdout, code } = await tandem("b", "doctor", "--quiet");
    assert.equal(code, 1);
    assert.match(stdout, /problem +mtu .*needs 2076\.\n +fix: ip link set mir0 mtu 2076/);
    assert.match(stdout, /problem +sysctl .*disable_ipv6 is 1.*\n +fix: sysctl -w/);
    assert.match(stdout, /warning +tc .*up0 ingress \(priority 5\)/);
  });
});
