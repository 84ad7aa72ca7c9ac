// The HTTP server: what it answers, and how little it takes.

import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { after, before, describe, test } from "node:test";
import { HttpServer } from "../../src/observe/http.js";

interface Answered {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

describe("HTTP", () => {
  let server: HttpServer;
  const failures: string[] = [];
  before(async () => {
    server = await HttpServer.listen(
      { address: "127.0.0.1", port: 0 },
      {
        "/": async () => ({ status: 200, contentType: "text/plain", body: "grüezi" }),
        "/broken": () => Promise.reject(new Error("<secret>")),
      },
      (path, error) => failures.push(`${path}: ${String(error)}`),
    );
  });
  after(() => server.close());

  function ask(method: string, path: string, options: http.RequestOptions = {}, body = ""): Promise<Answered> {
    return new Promise((resolve, reject) => {
      const request = http.request({ port: server.port, method, path, ...options }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => {
          text += part;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
      });
      request.on("error", reject);
      request.end(body);
    });
  }

  test("a path is answered with a policy that allows nothing foreign", async () => {
    const { status, headers, body } = await ask("GET", "/?x=1");
    assert.deepEqual([status, body, headers["content-length"]], [200, "grüezi", "7"]);
    const policy = String(headers["content-security-policy"]);
    assert.match(policy, /default-src 'none'/);
    assert.ok(!/unsafe|\*|http/.test(policy), policy);
    assert.equal(headers["x-content-type-options"], "nosniff");
    assert.equal(headers["cache-control"], "no-store");
  });

  test("HEAD has the headers and no body", async () => {
    const { status, headers, body } = await ask("HEAD", "/");
    assert.deepEqual([status, body, headers["content-length"]], [200, "", "7"]);
  });

  test("what is not GET or HEAD is refused, body or not", async () => {
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
      const { status, headers } = await ask(method, "/", {}, method === "POST" ? "x".repeat(10_000) : "");
      assert.deepEqual([status, headers.allow], [405, "GET, HEAD"]);
    }
  });

  test("unknown paths, and names that every object has, are not found", async () => {
    for (const path of ["/nothing", "/constructor", "/__proto__", "//", "/../etc/passwd"])
      assert.equal((await ask("GET", path)).status, 404, path);
  });

  test("a failure is told to the log and not to the asker", async () => {
    const { status, body } = await ask("GET", "/broken");
    assert.equal(status, 500);
    assert.ok(!body.includes("secret"));
    assert.deepEqual(failures, ["/broken: Error: <secret>"]);
  });

  test("headers beyond 8 KiB are refused", async () => {
    const { status } = await ask("GET", "/", { headers: { "x-long": "x".repeat(9000) } });
    assert.equal(status, 431);
  });

  test("who connects and says nothing is let go", async () => {
    const socket = net.connect(server.port, "127.0.0.1");
    const began = performance.now();
    socket.write("GET / HTTP/1.1\r\n");
    socket.on("error", () => {});
    await new Promise((resolve) => socket.once("close", resolve).resume());
    assert.ok(performance.now() - began < 20_000);
  });

  test("a port that is taken is an error", async () => {
    await assert.rejects(
      HttpServer.listen({ address: "127.0.0.1", port: server.port }, {}, () => {}),
      { code: "EADDRINUSE" },
    );
  });
});
