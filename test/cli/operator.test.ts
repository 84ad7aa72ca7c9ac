// The operator socket: what is asked is answered once, what is wrong is said with code, remedy and exit code, and
// whatever comes, the next request is served.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, suite, test } from "node:test";
import { z } from "zod";
import { exitCodes, TandemError } from "../../src/errors.js";
import { ask, type OperatorCommand, OperatorServer } from "../../src/observe/operator.js";

const add = {
  name: "add",
  arguments: z.strictObject({ a: z.int(), b: z.int().default(1) }),
  result: z.object({ sum: z.int() }),
  item: z.object({ step: z.int() }),
} satisfies OperatorCommand;
const fail = { name: "fail", arguments: z.strictObject({ how: z.string() }), result: z.null(), item: z.never() };
const watch = { name: "watch", arguments: z.strictObject({}), result: z.null(), item: z.int() };
const wrong = { name: "wrong", arguments: z.strictObject({}), result: z.int(), item: z.never() };
const unknown = { ...fail, name: "unheard-of" };

suite("operator socket", () => {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-operator-"));
  const socket = path.join(directory, "agent.sock");
  const server = new OperatorServer();
  let watcherGone: Promise<void>;

  before(async () => {
    server.register(add, async ({ a, b }, { progress, item }) => {
      progress("Adding.");
      item({ step: 1 });
      return { sum: a + b };
    });
    server.register(fail, async ({ how }) => {
      if (how === "refused") throw new TandemError("NOT_NOW", "It cannot be.", "Wait.", exitCodes.refused);
      throw new Error("the disk is full");
    });
    server.register(watch, async (_, { item, gone }) => {
      watcherGone = new Promise((resolve) => gone.addEventListener("abort", () => resolve()));
      const timer = setInterval(() => item(7), 5);
      await watcherGone;
      clearInterval(timer);
      return null;
    });
    server.register(wrong, async () => "seven" as unknown as number);
    writeFileSync(socket, "left behind");
    await server.listen(socket);
  });
  after(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  const refusal = async (asked: Promise<unknown>): Promise<TandemError> => {
    const error = await asked.then(
      () => null,
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof TandemError, String(error));
    assert.ok(error.remedy.length > 0);
    return error;
  };
  /** Raw bytes in, everything that comes back until the agent closes or has answered `answers` lines. */
  const raw = (bytes: string | Buffer, answers: number): Promise<string[]> =>
    new Promise((resolve) => {
      let text = "";
      const connection = net.connect(socket, () => connection.write(bytes));
      connection.setEncoding("utf8");
      connection.on("data", (data: string) => {
        text += data;
        if (text.split("\n").length > answers) connection.end();
      });
      connection.on("error", () => {});
      connection.on("close", () => resolve(text.split("\n").filter((line) => line !== "")));
    });

  test("belongs to its owner alone", () => {
    assert.equal(statSync(socket).mode & 0o777, 0o600);
  });

  test("answers with defaults filled in, after what it says meanwhile", async () => {
    const said: unknown[] = [];
    const result = await ask(socket, add, { a: 41 }, { onProgress: (s) => said.push(s), onItem: (i) => said.push(i) });
    assert.deepEqual(result, { sum: 42 });
    assert.deepEqual(said, ["Adding.", { step: 1 }]);
  });

  test("an error keeps its code, sentence, remedy and exit code on its way", async () => {
    const { code, message, remedy, exitCode } = await refusal(ask(socket, fail, { how: "refused" }));
    assert.deepEqual([code, message, remedy, exitCode], ["NOT_NOW", "It cannot be.", "Wait.", exitCodes.refused]);
  });

  test("what nobody expected has a code, too", async () => {
    const error = await refusal(ask(socket, fail, { how: "any" }));
    assert.equal(error.code, "COMMAND_FAILED");
    assert.match(error.message, /disk is full/);
  });

  test("names what it does not know or cannot read", async () => {
    assert.equal((await refusal(ask(socket, unknown, { how: "" }))).code, "COMMAND_UNKNOWN");
    assert.equal((await refusal(ask(socket, add, { a: 1.5 }))).code, "COMMAND_ARGUMENTS");
    assert.equal((await refusal(ask(socket, wrong, {}))).code, "AGENT_VERSION");
    const lines = await raw('nonsense\n[]\n{"command":"add","a":1,"c":2}\n{"command":"__proto__"}\n', 4);
    const codes = lines.map((line) => (JSON.parse(line) as { error: { code: string } }).error.code);
    assert.deepEqual(codes, ["COMMAND_ARGUMENTS", "COMMAND_ARGUMENTS", "COMMAND_ARGUMENTS", "COMMAND_UNKNOWN"]);
  });

  test("serves several requests on one connection, in their order, however they are cut", async () => {
    const requests = '{"command":"add","a":1}\n{"command":"add","a":2}\n';
    assert.deepEqual(
      (await raw(requests, 6)).filter((line) => line.includes("sum")).map((line) => JSON.parse(line)),
      [2, 3].map((sum) => ({ ok: true, result: { sum } })),
    );
  });

  test("closes on a line that never ends, and serves the next", async () => {
    assert.deepEqual(await raw(Buffer.alloc(1 << 20, "x"), 1), []);
    assert.deepEqual(await ask(socket, add, { a: 1 }), { sum: 2 });
  });

  test("a stream ends when the operator has enough", async () => {
    const enough = new AbortController();
    let items = 0;
    const onItem = () => {
      if (++items === 3) enough.abort();
    };
    assert.equal(await ask(socket, watch, {}, { onItem, enough: enough.signal }), null);
    assert.ok(items >= 3);
    await watcherGone;
  });

  test("an agent that says nothing is timed out, one that is not there unreachable", async () => {
    const mute = path.join(directory, "mute.sock");
    const listener = net.createServer(() => {});
    await new Promise<void>((resolve) => {
      listener.listen(mute, resolve);
    });
    const silent = await refusal(ask(mute, add, { a: 1 }, { silenceMs: 50 }));
    assert.deepEqual([silent.code, silent.exitCode], ["AGENT_SILENT", exitCodes.timeout]);
    listener.close();
    const absent = await refusal(ask(path.join(directory, "none.sock"), add, { a: 1 }));
    assert.deepEqual([absent.code, absent.exitCode], ["AGENT_UNREACHABLE", exitCodes.unreachable]);
  });
});
