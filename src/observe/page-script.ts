// The status page's script: once a second it asks for the page's live parts and replaces those that changed. All else
// is in the HTML, which is complete without it.

export const pageScript = `"use strict";
const stale = document.getElementById("stale");
let answeredAt = new Date();

async function refresh() {
  try {
    const response = await fetch("/live", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (!response.ok) throw new Error(response.statusText);
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of fresh.querySelectorAll("[data-live]")) {
      const shown = document.getElementById(part.id);
      if (!shown || shown.outerHTML === part.outerHTML) continue;
      const selection = getSelection();
      if (!selection.isCollapsed && shown.contains(selection.anchorNode)) continue; // somebody copies from it
      const places = [...shown.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each === document.activeElement]);
      shown.replaceWith(part);
      part.querySelectorAll(".scroll").forEach((each, index) => {
        const [left, focused] = places[index] ?? [0, false];
        each.scrollLeft = left;
        if (focused) each.focus({ preventScroll: true });
      });
    }
    answeredAt = new Date();
    stale.hidden = true;
  } catch {
    stale.textContent = "The agent has not answered since " + answeredAt.toLocaleTimeString() + ": what is shown is old.";
    stale.hidden = false;
  }
  setTimeout(refresh, document.hidden ? 5000 : 1000);
}

setTimeout(refresh, 1000);
`;
