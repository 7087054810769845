// Times that are said relative to now stay true while a page is open.
function amount(seconds) {
  for (const [size, name, least] of [[86400, "day", 84600], [3600, "h", 3570], [60, "min", 59.5]]) {
    if (seconds >= least) {
      const count = Math.max(1, Math.round(seconds / size));
      return `${count} ${name}${name === "day" && count > 1 ? "s" : ""}`;
    }
  }
  return `${Math.round(seconds)} s`;
}

export function relative(at, now) {
  const seconds = (at - now) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  if (seconds >= 3570 && seconds < 84600) return `in ${duration(Math.round(seconds / 60) * 60)}`;
  return seconds > 0 ? `in ${amount(seconds)}` : `${amount(-seconds)} ago`;
}

export function duration(seconds) {
  const two = (big, bigUnit, small, smallUnit) =>
    small ? `${big} ${bigUnit} ${String(small).padStart(2, "0")} ${smallUnit}` : `${big} ${bigUnit}`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(Math.floor(whole / 60), "m", whole % 60, "s");
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return two(Math.floor(minutes / 60), "h", minutes % 60, "m");
  const hours = Math.round(seconds / 3600);
  return two(Math.floor(hours / 24), "d", hours % 24, "h");
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function startClock() {
  setInterval(() => {
    if (document.hidden) return;
    const now = Date.now();
    for (const element of document.querySelectorAll("[data-since]")) {
      write(element, duration(Math.max(0, now - Date.parse(element.dataset.since)) / 1000));
    }
    for (const element of document.querySelectorAll("[data-relative]")) {
      write(element, relative(Date.parse(element.dateTime), now));
    }
  }, 1000);
}
