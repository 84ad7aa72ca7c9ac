// Transactions on an etcd cluster, by the JSON gateway of its v3 API (etcd.io/docs, "gRPC gateway"): several endpoints,
// TLS with client certificates, authentication by name and password.
//
// A question goes to the endpoint that answered last, and after a short while to the next one, too, while the first may
// still answer: whoever asks must be able to bear that a transaction arrives twice, or after it was given up.

import http from "node:http";
import https from "node:https";
import { z } from "zod";
import { sentenceOf } from "../../errors.js";

export interface EtcdSettings {
  /** http: or https: URLs, without a path. */
  endpoints: readonly string[];
  /** PEM. The gateway refuses client certificates that have a common name (etcd pull request 10392). */
  tls?: { ca: string; cert?: string; key?: string };
  user?: { name: string; password: string };
  /** After which no answer is waited for any more. */
  timeoutMs: number;
}

/** A value and the revision of its last change: "0" for a key that does not exist. */
export interface Entry {
  value: string | null;
  modRevision: string;
}

/** How long an endpoint may take before another one is asked as well. */
const hedgeMs = 150;
/** Between two rounds through endpoints that all failed at once (an election, for instance). */
const pauseMs = 50;
const maxAnswer = 1 << 20;

const authenticated = z.object({ token: z.string().min(1) });
/** Numbers of 64 bits are strings there, and members with their default value are left out. */
const rangeAnswer = z.object({
  kvs: z.array(z.object({ value: z.base64().default(""), mod_revision: z.string().regex(/^\d+$/) })).default([]),
});
const txnAnswer = z.object({
  header: z.object({ revision: z.string().regex(/^\d+$/) }),
  succeeded: z.boolean().default(false),
  responses: z.array(z.object({ response_range: rangeAnswer.optional() })).default([]),
});
const failure = z.object({ error: z.string(), code: z.int().optional() });

/** google.rpc.Code, in what the gateway answers when it cannot tell who asks. */
const unauthenticated = 16;

class EtcdFailure extends Error {
  constructor(
    message: string,
    readonly code: number | undefined,
  ) {
    super(message);
  }
}

export class EtcdClient {
  readonly #settings: EtcdSettings;
  readonly #agents: { http: http.Agent; https: https.Agent };
  /** Index of the endpoint that answered last. */
  #preferred = 0;
  #token: string | null = null;

  constructor(settings: EtcdSettings) {
    this.#settings = settings;
    this.#agents = {
      http: new http.Agent({ keepAlive: true }),
      https: new https.Agent({ keepAlive: true, minVersion: "TLSv1.2", ...settings.tls }),
    };
  }

  /** What stands there, as a majority knows it. Rejects, with a sentence, when nobody answers in time. */
  async read(key: string): Promise<Entry> {
    return entryOf(rangeAnswer.parse(await this.#ask("/v3/kv/range", { key: base64(key) })));
  }

  /** Puts `value` if the key has not changed since `modRevision`; gives null then the new revision, else what stands
   * there. Rejects when nobody answers in time: then it is unknown whether it was, or will be, put. */
  async swap(key: string, modRevision: string, value: string): Promise<{ revision: string } | { found: Entry }> {
    const answer = txnAnswer.parse(
      await this.#ask("/v3/kv/txn", {
        compare: [{ key: base64(key), target: "MOD", result: "EQUAL", mod_revision: modRevision }],
        success: [{ request_put: { key: base64(key), value: base64(value) } }],
        failure: [{ request_range: { key: base64(key) } }],
      }),
    );
    if (answer.succeeded) return { revision: answer.header.revision };
    return { found: entryOf(answer.responses[0]?.response_range ?? { kvs: [] }) };
  }

  close(): void {
    this.#agents.http.destroy();
    this.#agents.https.destroy();
  }

  async #ask(path: string, body: object): Promise<unknown> {
    const gone = new AbortController();
    const timer = setTimeout(() => gone.abort(), this.#settings.timeoutMs);
    try {
      return await this.#race(path, body, gone.signal);
    } finally {
      clearTimeout(timer);
      gone.abort();
    }
  }

  /** The first answer of any endpoint. */
  #race(path: string, body: object, gone: AbortSignal): Promise<unknown> {
    const { endpoints, timeoutMs } = this.#settings;
    return new Promise((resolve, reject) => {
      let launched = 0;
      let running = 0;
      let last = "no endpoint has answered";
      const timers = new Set<NodeJS.Timeout>();
      const later = (milliseconds: number): void => {
        timers.add(setTimeout(launch, milliseconds));
      };
      gone.addEventListener("abort", () => {
        for (const timer of timers) clearTimeout(timer);
        reject(new Error(`no answer within ${timeoutMs} ms (${last})`));
      });
      const launch = (): void => {
        if (gone.aborted || running >= endpoints.length) return;
        const index = (this.#preferred + launched++) % endpoints.length;
        running++;
        later(hedgeMs);
        this.#authenticated(endpoints[index] ?? "", path, body, gone).then(
          (answer) => {
            this.#preferred = index;
            resolve(answer);
          },
          (error: unknown) => {
            running--;
            if (gone.aborted) return;
            last = `${endpoints[index]}: ${sentenceOf(error)}`;
            later(launched % endpoints.length === 0 ? pauseMs : 0);
          },
        );
      };
      launch();
    });
  }

  async #authenticated(endpoint: string, path: string, body: object, gone: AbortSignal): Promise<unknown> {
    const { user } = this.#settings;
    if (user === undefined) return this.#post(endpoint, path, body, gone);
    const known = this.#token;
    try {
      if (known !== null) return await this.#post(endpoint, path, body, gone, known);
    } catch (error) {
      // Tokens expire, and a member that was restarted has forgotten them.
      if (!(error instanceof EtcdFailure) || error.code !== unauthenticated) throw error;
    }
    const { token } = authenticated.parse(await this.#post(endpoint, "/v3/auth/authenticate", user, gone));
    this.#token = token;
    return this.#post(endpoint, path, body, gone, token);
  }

  #post(endpoint: string, path: string, body: object, signal: AbortSignal, token?: string): Promise<unknown> {
    const url = new URL(path, endpoint);
    const secure = url.protocol === "https:";
    return new Promise((resolve, reject) => {
      const request = (secure ? https : http).request(url, {
        method: "POST",
        agent: secure ? this.#agents.https : this.#agents.http,
        headers: { "content-type": "application/json", ...(token === undefined ? {} : { authorization: token }) },
        signal,
      });
      request.on("error", reject);
      request.on("response", (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (piece: string) => {
          text += piece;
          if (text.length > maxAnswer) request.destroy(new Error("the answer is too long"));
        });
        response.on("error", reject);
        response.on("end", () => {
          try {
            if (response.statusCode === 200) resolve(JSON.parse(text));
            else reject(failureOf(response.statusCode ?? 0, text));
          } catch (error) {
            reject(error);
          }
        });
      });
      request.end(JSON.stringify(body));
    });
  }
}

function failureOf(status: number, text: string): EtcdFailure {
  try {
    const { error, code } = failure.parse(JSON.parse(text));
    return new EtcdFailure(error, code);
  } catch {
    return new EtcdFailure(`HTTP status ${status}: ${text.trim().slice(0, 200)}`, undefined);
  }
}

function entryOf({ kvs: [found] }: z.output<typeof rangeAnswer>): Entry {
  if (!found) return { value: null, modRevision: "0" };
  return { value: Buffer.from(found.value, "base64").toString("utf8"), modRevision: found.mod_revision };
}

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}
