// A log that is still written: what comes is added as it comes. Only text and our own classes ever reach the page.
const AGAIN_MS = 1500;
const KEPT = 2_000_000; // characters; what is above stays in the file
const ESCAPE = /\x1b(?:\[([0-?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[@-Z\\^_0-9=>])/g;
const ESCAPE_HERE = new RegExp(ESCAPE.source, "y");
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;
const BIDI = /[\u202a-\u202e\u2066-\u2069]/g;

// The same as web/ansi.py: text in pieces, each with a list of classes.
export class Ansi {
  bold = false;
  colour = 0;
  rest = "";

  feed(more) {
    let text = this.rest + more;
    this.rest = "";
    // A sequence that is cut in two waits for its end; one that never ends does not.
    const last = text.lastIndexOf("\x1b");
    if (last >= 0 && text.length - last < 64) {
      ESCAPE_HERE.lastIndex = last;
      const match = ESCAPE_HERE.exec(text);
      if (!match || (text[last + 1] === "]" && !/[\x07\\]$/.test(match[0]))) {
        this.rest = text.slice(last);
        text = text.slice(0, last);
      }
    }
    const found = [];
    let at = 0;
    for (const match of text.matchAll(ESCAPE)) {
      this.add(found, text.slice(at, match.index));
      at = match.index + match[0].length;
      if (match[2] === "m") this.style(match[1] ?? "");
    }
    this.add(found, text.slice(at));
    return found;
  }

  add(found, text) {
    const clean = text.replace(/\r\n/g, "\n").replace(/\r/g, "\n").replace(CONTROL, "").replace(BIDI, "\ufffd");
    if (clean) found.push([`${this.bold ? "b " : ""}${this.colour ? `a${this.colour}` : ""}`.trim(), clean]);
  }

  style(codes) {
    const numbers = codes.split(";").map((code) => Number(code) || 0);
    while (numbers.length) {
      const code = numbers.shift();
      if (code === 0) [this.bold, this.colour] = [false, 0];
      else if (code === 1 || code === 22) this.bold = code === 1;
      else if ((code >= 31 && code <= 37) || (code >= 91 && code <= 97)) this.colour = code % 10;
      else if (code === 30 || code === 90) this.colour = 8;
      else if (code === 39) this.colour = 0;
      else if (code === 38 || code === 48) numbers.splice(0, numbers[0] === 5 ? 2 : 4);
    }
  }
}

function add(log, found) {
  log.querySelector("[data-placeholder]")?.remove();
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
  for (const [style, text] of found) {
    const node = style ? document.createElement("span") : document.createTextNode(text);
    if (style) {
      node.className = style;
      node.textContent = text;
    }
    log.append(node);
  }
  let length = log.textContent.length;
  while (length > KEPT && log.childNodes.length > 1) {
    length -= log.firstChild.textContent.length;
    log.firstChild.remove();
  }
  if (atEnd) log.scrollTop = log.scrollHeight;
}

export function startLog() {
  const log = document.querySelector("[data-log]");
  if (!log) return;
  log.scrollTop = log.scrollHeight;
  if (!("follow" in log.dataset)) return;
  const ansi = new Ansi();
  const decoder = new TextDecoder();
  let end = Number(log.dataset.end);
  let stop = null;

  const again = () => setTimeout(() => document.hidden || follow(), AGAIN_MS);
  // A stream that ends may be that of a fluxd that stops: only the try itself says that it has ended.
  const hasEnded = async () => {
    const query = new URLSearchParams({ offset: String(end), limit: "0", map_index: log.dataset.map });
    const response = await fetch(`${log.dataset.log}?${query}`, { signal: stop.signal });
    if (!response.ok) throw new Error(String(response.status));
    return response.headers.get("X-Flux-Ended") === "true" && Number(response.headers.get("X-Flux-Log-Size")) <= end;
  };
  const follow = async () => {
    stop = new AbortController();
    const query = new URLSearchParams({ follow: "true", offset: String(end), map_index: log.dataset.map });
    try {
      const response = await fetch(`${log.dataset.log}?${query}`, { signal: stop.signal });
      if (!response.ok) {
        if (response.status >= 500) again();
        return;
      }
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        end += value.length;
        add(log, ansi.feed(decoder.decode(value, { stream: true })));
      }
      if (await hasEnded()) stop = null;
      else again();
    } catch (error) {
      if (error.name !== "AbortError") again(); // fluxd is away: go on where we were when it is back
    }
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop?.abort();
    else if (stop?.signal.aborted) follow();
  });
  follow();
}
