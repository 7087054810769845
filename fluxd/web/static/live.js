// News: the daemon says what changed (SSE), the page asks for itself again and takes over what differs.
import { startGraphs } from "./graph.js";

const QUIET_MS = 250; // after the last news, before looking
const SELDOM = 8; // at most one eighth of the time is spent on looking

// Make `old` like `fresh` with as few changes as possible, so that focus, selection and ticks stay where they are.
export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName || old.dataset?.id !== fresh.dataset?.id) {
    old.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open" && name !== "disabled") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const known = new Map();
  for (const child of old.children) if (child.dataset.id) known.set(child.dataset.id, child);
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const same = known.get(wanted.dataset?.id);
    if (same && same !== place) old.insertBefore(same, place);
    const here = same ?? place;
    if (!here) {
      old.append(document.importNode(wanted, true));
      continue;
    }
    const next = same && same !== place ? place : here.nextSibling;
    morph(here, wanted);
    place = next;
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function takeOver(page, { all }) {
  const log = document.querySelector("[data-log]");
  if (log?.dataset.try !== page.querySelector("[data-log]")?.dataset.try) {
    location.reload(); // another try has begun
    return;
  }
  for (const part of document.querySelectorAll("[data-part]")) {
    const fresh = page.querySelector(`[data-part="${part.dataset.part}"]`);
    // What was said stays until something else is said.
    if (fresh && (all || part.dataset.part !== "said" || fresh.childElementCount)) morph(part, fresh);
  }
  startGraphs();
}

// Ask for a page and take over what differs; go there if it is another page than this one.
export async function fetchPage(address = location.href, options = {}) {
  const response = await fetch(address, options);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const there = new URL(response.url);
  if (!response.ok) {
    const sentence = page.querySelector(".message p:not(.status)")?.textContent ?? `The answer was ${response.status}.`;
    say(sentence);
  } else if (there.pathname !== location.pathname) {
    location.href = response.url;
  } else {
    takeOver(page, { all: options.method === "POST" });
  }
}

export function say(sentence) {
  const line = document.createElement("p");
  line.className = "said refused";
  line.textContent = sentence;
  document.querySelector('[data-part="said"]')?.replaceChildren(line);
}

export const isConnected = () => document.querySelector("[data-link-state]")?.dataset.linkState !== "lost";

// Whether a message of the stream is about what this page shows.
function concerns(data) {
  const { live, dag, run } = document.body.dataset;
  if (live === "all") return true;
  if ((data.dags ?? []).includes(dag) || (["dag", "source"].includes(live) && data.files?.length)) return true;
  if (live === "source") return false;
  const both = [...(data.runs ?? []), ...(data.tasks ?? [])];
  return both.some((row) => row[0] === dag && (live === "dag" || row[1] === run));
}

export function startLive() {
  if (!document.body.dataset.live) return;
  const sign = document.querySelector("[data-link-state]");
  let source = null;
  let timer = 0;
  let looked = 0;
  let took = 0;
  let missed = false;

  const show = (state, words) => {
    if (!sign) return;
    sign.dataset.linkState = state;
    sign.textContent = words;
    sign.title = state === "on" ? "This page shows changes as they happen" : "No connection to fluxd: what you see may be old";
  };
  const look = async () => {
    timer = 0;
    looked = performance.now();
    try {
      await fetchPage();
    } catch {
      missed = true; // the stream comes back and has us look again
    }
    took = performance.now() - looked;
  };
  const soon = () => {
    if (timer) return;
    const since = performance.now() - looked;
    timer = setTimeout(look, Math.max(QUIET_MS, took * SELDOM - since));
  };
  const open = () => {
    source = new EventSource("/api/v1/events");
    source.addEventListener("open", () => {
      show("on", "live");
      if (missed) soon();
      missed = false;
    });
    source.addEventListener("error", () => {
      show("lost", "not connected");
      missed = true;
    });
    source.addEventListener("changed", (event) => concerns(JSON.parse(event.data)) && soon());
    source.addEventListener("reset", soon);
  };
  // A browser has few connections for one server: a page that nobody sees holds none.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      source?.close();
      source = null;
      missed = true;
    } else if (!source) {
      open();
    }
  });
  if (!document.hidden) open();
}
