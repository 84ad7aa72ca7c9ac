// How the status page writes quantities: with their unit, short, and always the same way.

/** 1234567 → "1.23 MB". Decimal units, as networks count. */
export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  let left = value;
  while (left >= 999.5 && index < units.length - 1) {
    left /= 1000;
    index++;
  }
  return `${index === 0 ? Math.round(left) : left.toPrecision(3)} ${units[index]}`;
}

/** 1234567 → "1 234 567", with thin spaces. */
export function grouped(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, "\u2009");
}

export function milliseconds(value: number): string {
  if (value >= 100) return `${Math.round(value)} ms`;
  return `${value.toFixed(value >= 10 ? 1 : 2)} ms`;
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

/** "21:33:30", UTC. */
export function clockTime(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(11, 19);
}

/** "2026-11-22 21:33:30", UTC. */
export function dateTime(timeMs: number): string {
  return `${new Date(timeMs).toISOString().slice(0, 10)} ${clockTime(timeMs)}`;
}
