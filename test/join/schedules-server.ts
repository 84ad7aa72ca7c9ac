// The mill on a router of a random schedule, confirmed and live: reads of odd sizes, messages in pieces, pauses, confirms
// now and then, logged, plain and held writes.
//   schedules-server.js APP_SOCKET SEED HOST ...
// Says "listening" when all do, and what becomes of sessions, a line each.

import net from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { connectAgent, type ServedConnection, serveProtected, serveReplicated } from "../../src/sdk/index.js";
import { grind, type MillState, packState, randomFrom, unpackState } from "./mill.js";
import { drained, readSome } from "./schedules-awkward.js";
import { servicePorts } from "./schedules-services.js";

const [socketPath = "", seed = "1", ...hosts] = process.argv.slice(2);
const random = randomFrom(Number(seed));
const nothing = Buffer.alloc(0);
let listening = 0;

/** Where a session begins here. */
interface Beginning {
  state: Uint8Array;
  inputOffset: number;
}

/** Processes the messages of one stream. */
class Miller {
  state: MillState;
  /** Input offset up to which `state` has processed; `pending` was read from there on. */
  processed: number;
  pending = nothing;
  #busy = false;
  #ended = false;

  /** `answer`: called in the same turn in which state and offset have moved; the next message waits for it. */
  constructor(
    private readonly stream: Duplex,
    { state, inputOffset }: Beginning,
    private readonly answer: (output: Buffer) => Promise<void>,
    private readonly end: () => Promise<void>,
  ) {
    this.state = unpackState(state);
    this.processed = inputOffset;
    stream.on("readable", () => void this.#work());
    stream.on("end", () => {
      this.#ended = true;
      void this.#work();
    });
  }

  /** What a hand-over says of the input. */
  get position() {
    return { inputOffset: this.processed, state: packState(this.state), inputBuffer: this.pending };
  }

  async #work(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    while (this.#read()) {
      while (this.pending.length >= 4 && this.pending.length >= 4 + this.pending.readUInt32BE()) {
        const length = 4 + this.pending.readUInt32BE();
        const { state, output } = grind(this.state, this.pending.subarray(4, length));
        this.state = state;
        this.pending = this.pending.subarray(length);
        this.processed += length;
        await this.answer(output);
      }
      if (random() < 0.02) await delay(random() * 100);
    }
    this.#busy = false;
    if (!this.#ended || this.pending.length > 0) return;
    this.#ended = false;
    await this.end();
  }

  #read(): boolean {
    const chunk = readSome(this.stream, random);
    if (chunk !== null) this.pending = Buffer.concat([this.pending, chunk]);
    return chunk !== null;
  }
}

function serveConfirmed({ socket, takeover, protect }: ServedConnection): void {
  const holdOutput = random() < 0.3;
  const mill = new Miller(
    socket,
    { state: takeover?.state ?? nothing, inputOffset: takeover?.inputOffset ?? 0 },
    async (output) => {
      // Not written: the session is over here, and lives at the other router or nowhere.
      const written = session.write(output, { logged: random() < 0.3 }).catch(() => {});
      const dice = random();
      // Held output leaves by nothing else than a confirm.
      if (dice < 0.4 || holdOutput) void confirm();
      if (dice > 0.9) await written;
    },
    async () => {
      await confirm();
      await session.close();
    },
  );
  const session = protect({
    replay: true,
    holdOutput,
    handover: () => ({ ...mill.position, outputOffset: session.outputOffset }),
  });
  const confirm = () => session.confirm(mill.processed, session.outputOffset, packState(mill.state));
  const peer = `confirmed ${socket.remotePort}`;
  const from = takeover === null ? "start" : `${takeover.inputOffset} ${takeover.outputOffset}`;
  console.log(`${peer}: ours from ${from}${holdOutput ? ", held" : ""}`);
  session.on("refused", (error) => console.log(`${peer}: ${error.code} ${error.message}`));
  socket.on("error", (error) => console.log(`${peer}: ${error.message}`));
}

serveReplicated({
  socketPath,
  service: "live",
  retryDelay: 100,
  listener: listen(servicePorts.live),
  onConnection: (connection, session) => {
    const mill = new Miller(
      connection,
      session,
      async (output) => {
        connection.write(output);
        if (random() < 0.5) await drained(connection);
      },
      async () => void connection.end(),
    );
    connection.protect(() => ({ ...mill.position, outputOffset: connection.outputOffset }));
    const peer = `live ${session.peer.port}`;
    session.on("takeover", ({ inputOffset, outputOffset }) =>
      console.log(`${peer}: ours from ${inputOffset} ${outputOffset}`),
    );
    connection.on("error", (error) => console.log(`${peer}: ${error.message}`));
  },
});

const agent = connectAgent({ path: socketPath, retryDelay: 100 });
serveProtected({
  agent,
  service: "confirmed",
  mode: "confirmed",
  listener: listen(servicePorts.confirmed),
  onConnection: serveConfirmed,
});

/** One listener for all hosts. */
function listen(port: number): net.Server {
  const all = new net.Server();
  for (const host of hosts) {
    const each = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => all.emit("connection", socket));
    each.listen({ host, port, backlog: 4096 }, () => {
      if (++listening === 2 * hosts.length) console.log("listening");
    });
  }
  return all;
}
