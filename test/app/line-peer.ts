// A peer of the examples: plain TCP, unmodified. Sends numbers, a line each, and checks every byte of every answer.
//   line-peer.js HOST PORT ledger|lines
// Says "connected"; on standard input "stop": no more numbers, ends, and says {answers, broken: null | what went wrong}
// when the service has ended, too.

import net from "node:net";
import { createInterface } from "node:readline";

const [host = "", port = "", service = ""] = process.argv.slice(2);
const socket = net.connect({ host, port: Number(port), allowHalfOpen: true, noDelay: true });
let count = 0;
let sum = 0;
let sent = 0;
let expected = "";
let answers = 0;
let broken: string | null = null;
/** The second piece of the last line. */
let rest = "";

function finishLine(): void {
  if (rest !== "") socket.write(rest);
  rest = "";
}

function send(): void {
  // Two timers of a process that was not scheduled for long may fire in either order.
  finishLine();
  count++;
  const number = ((count * 7919) % 2001) - 1000;
  sum += number;
  expected += service === "ledger" ? `${count} ${sum}\n` : `${count}: ${number}\n`;
  const line = `${number}\n`;
  sent += line.length;
  const cut = count % line.length;
  socket.write(line.slice(0, cut));
  rest = line.slice(cut);
  setTimeout(finishLine, 1);
}

socket.setEncoding("utf8").on("data", (text: string) => {
  if (!expected.startsWith(text)) broken ??= `after ${answers} answers "${text}" instead of "${expected}"`;
  expected = expected.slice(text.length);
  answers += text.split("\n").length - 1;
});
socket.on("error", (error) => {
  broken ??= error.message;
});
socket.on("connect", () => console.log("connected"));
const timer = setInterval(send, 10);
createInterface({ input: process.stdin }).once("line", () => {
  clearInterval(timer);
  finishLine();
  if (service === "lines") expected += `${count} lines, ${sent} bytes\n`;
  socket.end();
});
socket.on("close", () => {
  if (expected !== "") broken ??= `"${expected}" never came`;
  console.log(JSON.stringify({ answers, broken }));
  process.exit(0);
});
socket.on("end", () => socket.destroySoon());
