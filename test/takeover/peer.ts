// The remote end as the tests drive it: peer.py in the peer's namespace, which holds any number of sessions.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { Lab } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";

/** The source tree's: compiled tests lie in build/js/test/takeover. */
const program = fileURLToPath(new URL("../../../../test/takeover/peer.py", import.meta.url));

const sessionSchema = z.object({
  /** Bytes the kernel has taken, and bytes that came back. */
  sent: z.number(),
  received: z.number(),
  /** Where what came back first differed from what was sent; -1: nowhere. */
  wrong: z.number(),
  eof: z.boolean(),
  error: z.string().nullable(),
  connected: z.boolean(),
  /** Ours; 0 once the socket is closed. */
  port: z.number(),
  /** Of all bytes sent. */
  sha256: z.string(),
});
export type PeerSession = z.infer<typeof sessionSchema>;
const answerSchema = z.object({
  failure: z.string().optional(),
  distance: z.number().default(0),
  attempts: z.number().default(0),
  sessions: z.record(z.string(), sessionSchema).default({}),
});
type Answer = z.infer<typeof answerSchema>;

export interface Target {
  host: string;
  servicePort: number;
}
export interface Opening extends Target {
  /** Initial sequence number of the peer; default: the kernel's choice. */
  isn?: number;
  /** The peer's port. */
  port?: number;
  /** TCP_MAXSEG, bytes. */
  segment?: number;
  /** SO_RCVBUF, bytes. */
  receiveBuffer?: number;
}
export interface Changes {
  /** Send until so many bytes have been sent in all. */
  sendTo?: number;
  reading?: boolean;
  /** Finish our direction (FIN) after the last byte. */
  finish?: boolean;
}
/** A segment in the peer's name; `seq` and `ack` are relative to the peer's true next ones. */
export interface Forgery {
  flags: number;
  seq?: number;
  ack?: number;
  length?: number;
  /** The payload's byte. */
  fill?: number;
  corrupt?: boolean;
}

export class Peer {
  private readonly process: LabProcess;
  private readonly waiting: ((line: string) => void)[] = [];
  private complaint = "";

  constructor(lab: Lab) {
    this.process = lab.spawn("peer", ["python3", program], { stdio: ["pipe", "pipe", "pipe"] });
    const { stdout, stderr } = this.process.child;
    if (stdout === null || stderr === null) throw new Error("the peer has no pipes");
    createInterface({ input: stdout }).on("line", (line) => this.waiting.shift()?.(line));
    stderr.setEncoding("utf8").on("data", (text: string) => {
      this.complaint += text;
    });
    void this.process.exited.then(() => {
      for (const answer of this.waiting.splice(0))
        answer(JSON.stringify({ failure: `peer.py ended: ${this.complaint}` }));
    });
  }

  /** Begins to connect. */
  async open(name: string, opening: Opening & Changes): Promise<void> {
    await this.ask({ do: "open", name, ...opening });
  }

  /** Connects until the service's sequence numbers start at most `within` bytes before 2^32; gives that distance. */
  async openBeforeWrap(name: string, target: Target, within: number): Promise<number> {
    return (await this.ask({ do: "openBeforeWrap", name, within, ...target })).distance;
  }

  async change(name: string, changes: Changes): Promise<void> {
    await this.ask({ do: "change", name, ...changes });
  }

  /** Takes the sessions that a service opens, by these names in turn. */
  async listen(target: Target, names: string[]): Promise<void> {
    await this.ask({ do: "listen", names, ...target });
  }

  async forge(name: string, forgery: Forgery): Promise<void> {
    await this.ask({ do: "forge", name, ...forgery });
  }

  async sessions(): Promise<Record<string, PeerSession>> {
    return (await this.ask({ do: "status" })).sessions;
  }

  async session(name: string): Promise<PeerSession> {
    const session = (await this.sessions())[name];
    assert.ok(session, `the peer has no session ${name}`);
    return session;
  }

  /** Waits until all these sessions are so. Fails at once when one of them failed or got a wrong byte. */
  async until(
    what: string,
    names: string[],
    holds: (session: PeerSession) => boolean,
    limitMs = 30_000,
  ): Promise<void> {
    const deadline = performance.now() + limitMs;
    for (;;) {
      const all = await this.sessions();
      const late = names.filter((name) => {
        const session = all[name];
        assert.ok(session, `the peer has no session ${name}`);
        assert.equal(session.error, null, `${name}: ${session.error}, while waiting: ${what}`);
        assert.equal(session.wrong, -1, `${name}: wrong from byte ${session.wrong} on`);
        return !holds(session);
      });
      if (late.length === 0) return;
      if (performance.now() > deadline) {
        const shown = late.slice(0, 5).map((name) => `${name} ${JSON.stringify(all[name])}`);
        assert.fail(`not within ${limitMs} ms: ${what}; ${late.length} not so: ${shown.join(", ")}`);
      }
      await delay(20);
    }
  }

  /** Sends up to `bytes` in all and waits until every one of them has come back. */
  async exchange(names: string[], bytes: number, limitMs?: number): Promise<void> {
    for (const name of names) await this.change(name, { sendTo: bytes });
    await this.until(`${bytes} bytes came back`, names, ({ received }) => received === bytes, limitMs);
  }

  /** As exchange, then both directions end. */
  async conclude(names: string[], bytes: number, limitMs?: number): Promise<void> {
    for (const name of names) await this.change(name, { sendTo: bytes, reading: true, finish: true });
    await this.until(
      `${bytes} bytes came back, then the end`,
      names,
      ({ received, eof }) => received === bytes && eof,
      limitMs,
    );
  }

  private async ask(command: object): Promise<Answer> {
    const line = await new Promise<string>((resolve) => {
      this.waiting.push(resolve);
      this.process.child.stdin?.write(`${JSON.stringify(command)}\n`);
    });
    const answer = answerSchema.parse(JSON.parse(line));
    if (answer.failure !== undefined) throw new Error(answer.failure);
    return answer;
  }
}
