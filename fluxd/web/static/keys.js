// Everything by keyboard: / search, j and k through rows, g d to the dags, h and l to the neighbours, p t r x to act, ? what there is.
const KEYS = [
  ["/", "search dags"],
  ["j  k", "next and previous row; Enter opens it"],
  ["h  l", "the run before and after"],
  ["x", "tick the row"],
  ["p", "pause or unpause the dag of the row, or of the page"],
  ["t", "trigger the dag of the row, or of the page"],
  ["r", "run again: the ticked tasks, or the task of the page"],
  ["g d", "all dags"],
  ["?", "this list"],
];

function isTyping(target) {
  return target.isContentEditable || /^(input|textarea|select)$/i.test(target.nodeName) && target.type !== "checkbox";
}

function step(by) {
  const rows = [...document.querySelectorAll("[data-rows] a.primary")];
  if (!rows.length) return;
  const at = rows.findIndex((link) => link.closest("tr").contains(document.activeElement));
  const next = at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by));
  rows[next].focus();
}

// The button that a key stands for: in the row that has the focus, else of the page. The button asks what it always asks.
const ACTIONS = {
  x: ["input[name=task]", null],
  p: [".switch", ".title .switch"],
  t: [".c-do button", ".title form[action$='/trigger'] > button.main"],
  r: [null, "button[data-again], form[data-again] button"],
};

function act(key) {
  const [inRow, onPage] = ACTIONS[key];
  const row = document.activeElement?.closest("[data-rows] tr");
  const button = (inRow && row?.querySelector(inRow)) ?? (onPage && document.querySelector(onPage));
  button?.click();
  return Boolean(button);
}

function search() {
  const field = document.querySelector("[data-search] input[type=search]");
  if (!field) {
    location.href = "/dags#search";
    return;
  }
  field.focus();
  field.select();
}

function showKeys() {
  let dialog = document.querySelector("dialog.keys");
  if (!dialog) {
    dialog = document.createElement("dialog");
    dialog.className = "keys";
    for (const [key, words] of KEYS) {
      const line = document.createElement("p");
      const sign = document.createElement("kbd");
      sign.textContent = key;
      line.append(sign, ` ${words}`);
      dialog.append(line);
    }
    dialog.addEventListener("click", () => dialog.close());
    document.body.append(dialog);
  }
  dialog.showModal();
}

export function startKeys() {
  let after = "";
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && isTyping(event.target)) event.target.blur();
    if (isTyping(event.target)) return;
    const key = after + event.key;
    after = "";
    if (key === "/") search();
    else if (key === "j") step(1);
    else if (key === "k") step(-1);
    else if (key === "?") showKeys();
    else if (key === "g") after = "g";
    else if (key === "gd") location.href = "/dags";
    else if (key === "h" || key === "l") document.querySelector(`[data-key="${key}"]`)?.click();
    else if (!(key in ACTIONS) || !act(key)) return;
    event.preventDefault();
  });
  if (location.hash === "#search") search();
}
