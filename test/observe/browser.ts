// A headless Chromium in a namespace of the lab, driven by its DevTools protocol over two pipes.

import { existsSync } from "node:fs";
import path from "node:path";
import type { Readable, Writable } from "node:stream";
import { z } from "zod";
import type { Lab, NodeName } from "../../src/lab/lab.js";

/** The first program of these names on the PATH. */
export function programNamed(...names: string[]): string | null {
  for (const name of names)
    for (const directory of (process.env.PATH ?? "").split(":")) {
      const file = path.join(directory, name);
      if (existsSync(file)) return file;
    }
  return null;
}

export const chromium = programNamed("chromium", "chromium-browser", "google-chrome");

const message = z.object({
  id: z.number().optional(),
  method: z.string().optional(),
  params: z.unknown().optional(),
  result: z.unknown().optional(),
  error: z.object({ message: z.string() }).optional(),
});
const answerLimitMs = 30_000;

export class Browser {
  readonly #input: Writable;
  readonly #waiting = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();
  #next = 1;
  #session: string | undefined;
  /** What the browser complained of: errors of scripts, and what the page's policy forbade. */
  readonly problems: string[] = [];

  private constructor(input: Writable, output: Readable) {
    this.#input = input;
    let left = "";
    output.setEncoding("utf8").on("data", (text: string) => {
      const messages = (left + text).split("\0");
      left = messages.pop() ?? "";
      for (const each of messages) this.#take(message.parse(JSON.parse(each)));
    });
  }

  static async start(lab: Lab, node: NodeName): Promise<Browser> {
    if (chromium === null) throw new Error("Chromium is not installed");
    const { child } = lab.spawn(
      node,
      [
        chromium,
        ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"],
        ...["--disable-background-networking", "--hide-scrollbars", "--remote-debugging-pipe"],
        `--user-data-dir=${path.join(lab.directory, "chromium")}`,
        "about:blank",
      ],
      { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
    );
    const browser = new Browser(child.stdio[3] as Writable, child.stdio[4] as Readable);
    const { targetId } = z
      .object({ targetId: z.string() })
      .parse(await browser.#ask("Target.createTarget", { url: "about:blank" }));
    const { sessionId } = z
      .object({ sessionId: z.string() })
      .parse(await browser.#ask("Target.attachToTarget", { targetId, flatten: true }));
    browser.#session = sessionId;
    for (const domain of ["Page", "Runtime", "Log", "Accessibility"]) await browser.#ask(`${domain}.enable`);
    return browser;
  }

  /** Resolves when the page and its files are loaded. */
  async open(url: string, options: { width: number; scheme: "light" | "dark"; scripts: boolean }): Promise<void> {
    await this.#ask("Emulation.setDeviceMetricsOverride", {
      width: options.width,
      height: 900,
      deviceScaleFactor: 1,
      mobile: false,
    });
    await this.#ask("Emulation.setEmulatedMedia", {
      features: [{ name: "prefers-color-scheme", value: options.scheme }],
    });
    await this.#ask("Emulation.setScriptExecutionDisabled", { value: !options.scripts });
    await this.#ask("Page.navigate", { url });
    while ((await this.evaluate("document.readyState + location.href")) !== `complete${url}`);
  }

  /** The value of an expression in the page; promises are waited for. */
  async evaluate(expression: string): Promise<unknown> {
    const answer = z
      .object({ result: z.object({ value: z.unknown().optional() }), exceptionDetails: z.unknown().optional() })
      .parse(await this.#ask("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true }));
    if (answer.exceptionDetails !== undefined)
      throw new Error(`${expression}: ${JSON.stringify(answer.exceptionDetails)}`);
    return answer.result.value;
  }

  /** The whole page as PNG. */
  async screenshot(): Promise<Buffer> {
    const { cssContentSize } = z
      .object({ cssContentSize: z.object({ width: z.number(), height: z.number() }) })
      .parse(await this.#ask("Page.getLayoutMetrics"));
    const { data } = z.object({ data: z.string() }).parse(
      await this.#ask("Page.captureScreenshot", {
        captureBeyondViewport: true,
        clip: { x: 0, y: 0, ...cssContentSize, scale: 1 },
      }),
    );
    return Buffer.from(data, "base64");
  }

  /** What assistive technology gets: role and name of each node. */
  async accessibility(): Promise<{ role: string; name: string }[]> {
    const value = z.object({ value: z.unknown().optional() }).optional();
    const { nodes } = z
      .object({ nodes: z.array(z.object({ ignored: z.boolean(), role: value, name: value })) })
      .parse(await this.#ask("Accessibility.getFullAXTree"));
    return nodes
      .filter(({ ignored }) => !ignored)
      .map(({ role, name }) => ({ role: String(role?.value ?? ""), name: String(name?.value ?? "") }));
  }

  #take({ id, method, params, result, error }: z.infer<typeof message>): void {
    if (id !== undefined) {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) waiting?.reject(new Error(error.message));
      else waiting?.resolve(result);
    } else if (method === "Runtime.exceptionThrown") this.problems.push(JSON.stringify(params));
    else if (method === "Log.entryAdded") {
      const { entry } = z.object({ entry: z.object({ level: z.string(), text: z.string() }) }).parse(params);
      if (entry.level === "error" || entry.level === "warning") this.problems.push(entry.text);
    }
  }

  #ask(method: string, params: Record<string, unknown> = {}): Promise<unknown> {
    const id = this.#next++;
    const answer = new Promise<unknown>((resolve, reject) => {
      const limit = setTimeout(() => reject(new Error(`Chromium does not answer to ${method}`)), answerLimitMs);
      const settled =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(limit);
          then(value);
        };
      this.#waiting.set(id, { resolve: settled(resolve), reject: settled(reject) });
    });
    this.#input.write(`${JSON.stringify({ id, method, params, sessionId: this.#session })}\0`);
    return answer;
  }
}
