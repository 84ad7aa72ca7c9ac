// Half-open sessions after a takeover: the recorded SYN-ACK is sent again until the peer answers it; then, and not
// before, the session is given to its application. The restored socket does the rest of TCP's work by itself.

import { native } from "../../addon/native.js";
import { sendPackets } from "../net/nudge.js";
import type { TakenSession } from "../recorder/messages.js";
import { readKey } from "../session/flow-key.js";

/** When the SYN-ACK goes out, ms after the takeover: now, then as a stack would repeat it. */
const offersMs = [0, 1000, 3000, 7000];
const giveUpMs = 15_000;
const pollMs = 10;
/** tcpi_last_ack_recv counts in milliseconds and jiffies; only a clear difference is an answer. */
const slackMs = 8;

export class PendingHandshakes {
  private readonly waiting = new Set<{ session: TakenSession; sinceMs: number; offers: number }>();
  private timer: NodeJS.Timeout | null = null;

  constructor(private readonly onAnswered: (session: TakenSession) => void) {}

  /** The sockets are in repair mode. */
  add(sessions: TakenSession[]): void {
    if (sessions.length === 0) return;
    native.restoreRelease(
      sessions.map(({ fd }) => fd),
      false,
    );
    const sinceMs = performance.now();
    for (const session of sessions) this.waiting.add({ session, sinceMs, offers: 0 });
    this.timer ??= setInterval(() => this.poll(), pollMs);
    this.poll();
  }

  stop(): void {
    if (this.timer) clearInterval(this.timer);
    this.timer = null;
    for (const { session } of this.waiting) native.closeFd(session.fd);
    this.waiting.clear();
  }

  private poll(): void {
    const now = performance.now();
    const offers = [];
    for (const entry of this.waiting) {
      const { session } = entry;
      const age = now - entry.sinceMs;
      // Restoring sets the time of the last acknowledgement; only a valid one of the peer sets it again.
      if (native.tcpInfo(session.fd).lastAckRecvMs + slackMs < age) {
        this.waiting.delete(entry);
        this.onAnswered(session);
      } else if (age > giveUpMs) {
        this.waiting.delete(entry);
        native.closeFd(session.fd);
      } else if (session.synAck !== null && age >= (offersMs[entry.offers] ?? Number.POSITIVE_INFINITY)) {
        entry.offers++;
        const { family, peerIp } = readKey(session.key);
        offers.push({ family, destination: peerIp, bytes: session.synAck });
      }
    }
    if (offers.length > 0) void sendPackets(offers);
    if (this.waiting.size === 0) this.stop();
  }
}
