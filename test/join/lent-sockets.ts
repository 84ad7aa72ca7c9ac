// Sockets of a node of the lab, in the hands of the test: a small Python program makes them there, and its descriptors are
// taken over from outside. What the program itself keeps ends with its node.

import { native } from "../../addon/native.js";
import type { Lab, NodeName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";

const program = `
import os, socket, sys
made = []
for line in sys.stdin:
    made.append(eval(line))
    print(made[-1] if isinstance(made[-1], int) else made[-1].fileno(), flush=True)
`;

export class SocketLender {
  readonly #process: LabProcess;
  #answer: ((fd: number) => void) | null = null;
  #said = "";

  constructor(lab: Lab, node: NodeName) {
    this.#process = lab.spawn(node, ["python3", "-c", program], { stdio: ["pipe", "pipe", "inherit"] });
    this.#process.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#said += text;
      if (!this.#said.endsWith("\n")) return;
      this.#answer?.(Number(this.#said));
      this.#said = "";
    });
  }

  /** A duplicate of what the Python expression makes: a socket, or a descriptor. `made` are the objects made before. */
  async lend(expression: string): Promise<number> {
    const theirs = new Promise<number>((resolve, reject) => {
      this.#answer = resolve;
      void this.#process.exited.then(() => reject(new Error(`${expression} failed`)));
    });
    this.#process.child.stdin?.write(`${expression}\n`);
    return native.pidfdGetfd(this.#process.pid, await theirs);
  }

  /** What was lent stays. */
  async end(): Promise<void> {
    this.#process.signal("SIGKILL");
    await this.#process.exited;
  }
}
