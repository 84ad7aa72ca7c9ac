// Sends frames out of a device: noise-process DEVICE, one frame in hexadecimal a line on standard input. Started
// inside the namespace; ends with its input.

import { createInterface } from "node:readline";
import cap from "cap";

const sender = new cap.Cap();
sender.open(process.argv[2] ?? "", "ether proto 0x88b6", 1 << 16, Buffer.alloc(64));
for await (const line of createInterface({ input: process.stdin })) {
  const frame = Buffer.from(line, "hex");
  try {
    sender.send(frame, frame.length);
  } catch {
    // The device's queue is full: noise may be lost.
  }
}
sender.close();
