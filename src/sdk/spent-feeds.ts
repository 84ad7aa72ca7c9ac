// Closes the feeds of sessions taken over, some at a time and a little later: closing one costs about as much as taking a
// socket over, and a thousand sessions are taken over at once, each with a peer that waits.

import type net from "node:net";

const LATER_MS = 100;
const AT_ONCE = 32;

/** While there are any, a timer runs. */
const spent: net.Socket[] = [];

/** The feed delivers nothing any more. */
export function closeSpentFeed(feed: net.Socket): void {
  feed.pause();
  if (spent.push(feed) === 1) setTimeout(closeSome, LATER_MS);
}

function closeSome(): void {
  for (const feed of spent.splice(0, AT_ONCE)) feed.destroy();
  if (spent.length > 0) setTimeout(closeSome, 1);
}
