// A graph to move about in: drag to pan, Ctrl and wheel (or the buttons) to zoom. The picture itself comes from the server.
const HIGHEST = 420;
const views = new Map(); // part of the page → where its graph was left

function equip(room) {
  const svg = room.querySelector("svg.graph");
  if (!svg || room.classList.contains("live")) return;
  const [width, height] = ["width", "height"].map((name) => Number(svg.getAttribute(name)));
  room.classList.add("live");
  const across = room.clientWidth;
  const scale = Math.min(1, across / width, HIGHEST / height);
  room.style.height = `${Math.ceil(Math.max(40, height * scale))}px`;
  svg.setAttribute("height", "100%");
  const fit = { x: 0, y: 0, zoom: scale };
  const name = room.closest("[data-part]")?.dataset.part;
  const view = views.get(name) ?? { ...fit };
  views.set(name, view);

  const show = () => {
    const tall = room.clientHeight / view.zoom;
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${room.clientWidth / view.zoom} ${tall}`);
    svg.setAttribute("preserveAspectRatio", "xMinYMin meet");
  };
  const zoom = (factor, x = room.clientWidth / 2, y = room.clientHeight / 2) => {
    const next = Math.min(3, Math.max(scale / 2, view.zoom * factor));
    view.x += x / view.zoom - x / next;
    view.y += y / view.zoom - y / next;
    view.zoom = next;
    show();
  };
  room.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = room.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });

  let from = null;
  let moved = false;
  room.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && !event.target.closest("button")) from = { x: event.clientX, y: event.clientY };
    moved = false;
  });
  room.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
    if (!moved && Math.hypot(dx, dy) < 4) return;
    if (!moved) room.setPointerCapture(event.pointerId);
    moved = true;
    view.x -= dx / view.zoom;
    view.y -= dy / view.zoom;
    from = { x: event.clientX, y: event.clientY };
    show();
  });
  for (const end of ["pointerup", "pointercancel"]) room.addEventListener(end, () => { from = null; });
  // A link under the hand must not open when the graph was only moved.
  room.addEventListener("click", (event) => moved && event.preventDefault(), true);
  room.addEventListener("dragstart", (event) => event.preventDefault());

  const buttons = document.createElement("div");
  buttons.className = "zoom";
  const all = [["−", "Smaller", () => zoom(1 / 1.3)], ["+", "Bigger", () => zoom(1.3)], ["fit", "All of it", () => { Object.assign(view, fit); show(); }]];
  for (const [sign, words, act] of all) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = sign;
    button.title = words;
    button.addEventListener("click", act);
    buttons.append(button);
  }
  room.append(buttons);
  show();
}

export function startGraphs() {
  for (const room of document.querySelectorAll("[data-graph]")) equip(room);
}
