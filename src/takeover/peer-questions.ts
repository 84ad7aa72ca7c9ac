// Sessions that were taken over and whose peer has to say something first: each is asked now and then, until its answer
// decides what becomes of the session, or patience ends.

import { type IpPacket, sendPackets } from "../net/nudge.js";

const pollMs = 10;

export interface Question {
  /** When the peer is asked, ms after the beginning. */
  atMs: readonly number[];
  patienceMs: number;
  /** What asks it, made when it is sent. */
  packet(): IpPacket;
  /** What is known `ageMs` after the beginning; null: nothing yet. */
  answer(ageMs: number): "goesOn" | "ends" | null;
  goesOn(): void;
  /** Also when the peer says nothing, or the agent stops: closes the socket. */
  ends(): void;
}

export class PeerQuestions {
  private readonly open = new Set<{ question: Question; sinceMs: number; asked: number }>();
  private timer: NodeJS.Timeout | null = null;

  add(questions: Question[]): void {
    if (questions.length === 0) return;
    const sinceMs = performance.now();
    for (const question of questions) this.open.add({ question, sinceMs, asked: 0 });
    this.timer ??= setInterval(() => this.poll(), pollMs);
    this.poll();
  }

  stop(): void {
    if (this.timer) clearInterval(this.timer);
    this.timer = null;
    for (const { question } of this.open) question.ends();
    this.open.clear();
  }

  private poll(): void {
    const now = performance.now();
    const packets = [];
    for (const entry of this.open) {
      const { question } = entry;
      const ageMs = now - entry.sinceMs;
      const answer = question.answer(ageMs) ?? (ageMs > question.patienceMs ? "ends" : null);
      if (answer !== null) {
        this.open.delete(entry);
        question[answer]();
      } else if (ageMs >= (question.atMs[entry.asked] ?? Number.POSITIVE_INFINITY)) {
        entry.asked++;
        packets.push(question.packet());
      }
    }
    if (packets.length > 0) void sendPackets(packets);
    if (this.open.size === 0) this.stop();
  }
}
