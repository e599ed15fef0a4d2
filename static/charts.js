// What charts do in the browser: times in the reader's own zone, and the numbers at the place that is pointed at.

const WORDS = {
  time: new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" }),
  day: new Intl.DateTimeFormat("en-GB", { weekday: "short" }),
  date: new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" }),
  full: new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }),
};
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

function bytes(count) {
  let unit = 0;
  while (count >= 1000 && unit < UNITS.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${UNITS[unit]}/s`;
}

const SAY = {
  traffic: bytes,
  sessions: (count) => (count >= 10 || Number.isInteger(count) ? String(Math.round(count)) : count.toFixed(1)),
};

/** Words below charts, in the zone of whoever reads them. */
export function showClocks(root = document) {
  for (const word of root.querySelectorAll("[data-clock]")) {
    word.textContent = WORDS[word.dataset.clock].format(new Date(word.dataset.at));
  }
}

/** The numbers of one moment in place of those of now; place: 0 to 1 from the left. */
function pointAt(chart, place) {
  const frame = chart.closest("[data-series]");
  const kind = chart.classList.contains("traffic") ? "traffic" : "sessions";
  const lines = [...chart.querySelectorAll("[data-values]")].map((line) => line.dataset.values.split(","));
  const count = lines[0].length;
  const index = Math.min(count - 1, Math.max(0, Math.floor(place * count)));
  const at = new Date(Date.parse(frame.dataset.series) + index * frame.dataset.step * 1000);
  const x = ((index + 0.5) / count) * 1000;
  chart.querySelector("[data-cross]").setAttribute("d", `M${x} 0V100`);
  chart.querySelectorAll("[data-now]").forEach((now, number) => {
    const value = lines[number][index];
    now.textContent = value === "" ? "not known" : SAY[kind](Number(value));
  });
  chart.querySelector("[data-when]").textContent = WORDS.full.format(at);
}

function leave(chart) {
  chart.querySelector("[data-cross]").setAttribute("d", "");
  chart.querySelector("[data-when]").textContent = "";
  for (const now of chart.querySelectorAll("[data-now]")) now.textContent = now.dataset.now;
}

/** Follows the pointer. Called once; charts that come later are charts as well. */
export function startCharts() {
  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest?.("[data-chart] .plot");
    for (const chart of document.querySelectorAll("[data-chart]")) {
      if (plot && chart.contains(plot)) {
        const box = plot.getBoundingClientRect();
        pointAt(chart, (event.clientX - box.left) / box.width);
      } else if (chart.querySelector("[data-when]").textContent) {
        leave(chart);
      }
    }
  });
  showClocks();
}
