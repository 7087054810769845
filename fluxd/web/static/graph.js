// A graph to move about in: drag to pan, Ctrl and wheel (or the buttons) to zoom. The picture itself comes from the server.
const HIGHEST = 420;
const LEAST_HIGH = 260; // of the room of a graph that is higher than that
const SMALLEST = 0.6; // text that is smaller cannot be read; the rest is a drag away
const LARGEST = 3;
const views = new Map(); // part of the page → where its graph was left
const equipped = new WeakMap(); // room, button → what is to be done when the page has changed

const between = (least, value, most) => Math.min(most, Math.max(least, value));

class View {
  constructor(room) {
    this.room = room;
    this.panel = room.closest("[data-part]");
    this.at = views.get(this.panel.dataset.part);
  }

  // The room and the picture as they are by now.
  measure() {
    this.svg = this.room.querySelector("svg.graph");
    [this.width, this.height] = ["width", "height"].map((name) => Number(this.svg.dataset[name]));
    const across = this.room.clientWidth;
    this.whole = Math.min(1, across / this.width, HIGHEST / this.height);
    this.fits = this.whole === 1;
    const scale = Math.max(SMALLEST, this.whole);
    const tall = Math.min(HIGHEST, this.height * scale);
    this.room.style.height = `${Math.ceil(Math.max(tall, Math.min(LEAST_HIGH, this.height)))}px`;
    this.room.classList.add("live");
    this.room.classList.toggle("fits", this.fits);
    this.svg.setAttribute("height", "100%");
    this.svg.setAttribute("preserveAspectRatio", "xMinYMin meet");
    for (const buttons of this.panel.querySelectorAll("[data-zoom]")) buttons.hidden = this.fits;
    this.start = { x: 0, y: (this.height - this.room.clientHeight / scale) / 2, zoom: scale };
    if (!this.at || this.fits) this.at = { ...this.start };
    views.set(this.panel.dataset.part, this.at);
    this.show();
  }

  // No part of the room stays empty that the graph could fill; a graph that is smaller stands in the middle.
  show() {
    const { at } = this;
    for (const [axis, long, room] of [["x", this.width, this.room.clientWidth], ["y", this.height, this.room.clientHeight]]) {
      const seen = room / at.zoom;
      at[axis] = seen >= long ? (long - seen) / 2 : between(0, at[axis], long - seen);
    }
    const [wide, tall] = [this.room.clientWidth / at.zoom, this.room.clientHeight / at.zoom];
    this.svg.setAttribute("viewBox", `${at.x} ${at.y} ${wide} ${tall}`);
  }

  move(dx, dy) {
    this.at.x -= dx / this.at.zoom;
    this.at.y -= dy / this.at.zoom;
    this.show();
  }

  // What lies under (x, y) stays there.
  zoom(factor, x = this.room.clientWidth / 2, y = this.room.clientHeight / 2) {
    const { at } = this;
    const next = between(Math.min(this.whole, SMALLEST), at.zoom * factor, LARGEST);
    at.x += x / at.zoom - x / next;
    at.y += y / at.zoom - y / next;
    at.zoom = next;
    this.show();
  }

  all() {
    this.at.zoom = this.whole;
    this.show();
  }
}

function followHand(room, view) {
  let from = null;
  let moved = false;
  room.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && !view.fits) from = { x: event.clientX, y: event.clientY };
    moved = false;
  });
  room.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
    if (!moved && Math.hypot(dx, dy) < 4) return;
    if (!moved) room.setPointerCapture(event.pointerId);
    moved = true;
    view.move(dx, dy);
    from = { x: event.clientX, y: event.clientY };
  });
  for (const end of ["pointerup", "pointercancel"]) room.addEventListener(end, () => { from = null; });
  // A link under the hand must not open when the graph was only moved.
  room.addEventListener("click", (event) => moved && event.preventDefault(), true);
  room.addEventListener("dragstart", (event) => event.preventDefault());
}

function equip(room) {
  const view = new View(room);
  equipped.set(room, view);
  followHand(room, view);
  room.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = room.getBoundingClientRect();
    view.zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  // A task that is reached by the keyboard comes into sight.
  room.addEventListener("focusin", (event) => {
    room.scrollTo(0, 0);
    const box = event.target.getBoundingClientRect();
    const seen = room.getBoundingClientRect();
    view.move(
      Math.max(0, seen.left - box.left) - Math.max(0, box.right - seen.right),
      Math.max(0, seen.top - box.top) - Math.max(0, box.bottom - seen.bottom),
    );
  });
  const acts = { smaller: () => view.zoom(1 / 1.3), bigger: () => view.zoom(1.3), all: () => view.all() };
  view.panel.addEventListener("click", (event) => acts[event.target.closest("[data-zoom] button")?.value]?.());
}

export function startGraphs() {
  for (const room of document.querySelectorAll("[data-graph]")) {
    if (!equipped.has(room)) equip(room);
    equipped.get(room).measure();
  }
}

addEventListener("resize", startGraphs);
