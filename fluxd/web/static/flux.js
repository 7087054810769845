// What scripts add to pages that are complete without them: news, keys, light or dark, a graph to move, a log that grows.
import { fetchPage, isConnected, say, startLive } from "./live.js";
import { startKeys } from "./keys.js";
import { startGraphs } from "./graph.js";
import { startLog } from "./log.js";
import { startClock } from "./clock.js";

function startTheme() {
  document.querySelector("[data-theme-form]")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const root = document.documentElement;
    const dark = root.dataset.theme === "auto"
      ? matchMedia("(prefers-color-scheme: dark)").matches
      : root.dataset.theme === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    document.cookie = `flux_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
  });
}

// What a button is called for people.
const nameOf = (button) => button?.getAttribute("aria-label") ?? (button?.textContent.trim() || "the action");

// A form that leads back to this page is sent without leaving it.
function startForms() {
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    const button = event.submitter;
    if (!form.matches("form[data-quiet]")) {
      // Leaving this page for one that cannot come would lose what was typed.
      if (form.method === "post" && !form.matches("[data-theme-form]") && !isConnected()) {
        event.preventDefault();
        say(`There is no connection to fluxd: “${nameOf(button)}” was not carried out. Try it again when this page is live.`);
      }
      return;
    }
    event.preventDefault();
    const address = button?.hasAttribute("formaction") ? button.formAction : form.action;
    const body = new URLSearchParams(new FormData(form, button)); // before: a disabled button has no value
    if (button) button.disabled = true;
    try {
      await fetchPage(address, { method: "POST", body });
    } catch {
      say(`The connection to fluxd broke: “${nameOf(button)}” may not have been carried out. Look here when this page is live again, then repeat it.`);
    } finally {
      if (button) button.disabled = false;
    }
  });
  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-pick-all]")) return;
    for (const box of event.target.closest("table").querySelectorAll("tbody input[type=checkbox]")) {
      box.checked = event.target.checked;
    }
  });
}

// The search field finds while one types.
function startSearch() {
  const form = document.querySelector("form[data-search]");
  let timer = 0;
  form?.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const query = new URLSearchParams(new FormData(form));
      if (!query.get("q")) query.delete("q");
      const address = query.size ? `${form.action}?${query}` : form.action;
      history.replaceState(null, "", address);
      fetchPage(address).catch(() => say("There is no connection to fluxd: what you see is what was found before."));
    }, 180);
  });
}

// Pages leave the zone out beside a time that the reader's own clocks show too.
document.cookie = `flux_zone=${Intl.DateTimeFormat().resolvedOptions().timeZone}; path=/; max-age=31536000; samesite=lax`;

startTheme();
startForms();
startSearch();
startKeys();
startGraphs();
startLog();
startClock();
startLive();
