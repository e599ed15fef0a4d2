// The palette (Ctrl-K, or the search button of the page): finds pages, things and what can be done, and leads to them.

import { ours } from "/static/html.js";

export function startPalette() {
  window.addEventListener("hashchange", fromAddress);
  fromAddress();
  const dialog = document.getElementById("palette");
  if (dialog) listen(dialog);
}

function listen(dialog) {
  const input = dialog.querySelector("input");
  const list = dialog.querySelector("ul");
  let asked = 0;
  let timer = 0;
  let found = Promise.resolve();
  const choose = (step) => {
    const rows = [...list.querySelectorAll("li")];
    const at = rows.findIndex((row) => row.getAttribute("aria-selected") === "true");
    const next = rows[(at + step + rows.length) % rows.length];
    for (const row of rows) row.setAttribute("aria-selected", String(row === next));
    next?.scrollIntoView({ block: "nearest" });
    if (next) input.setAttribute("aria-activedescendant", next.id);
  };
  const look = async () => {
    const number = ++asked;
    const response = await fetch(`/ui/palette?q=${encodeURIComponent(input.value)}`, { credentials: "same-origin" });
    const html = await response.text();
    if (number !== asked || !response.ok) return;
    list.innerHTML = ours(html);
    choose(1);
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    found = new Promise((resolve) => (timer = setTimeout(() => look().then(resolve), 80)));
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      choose(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter") {
      event.preventDefault();
      found.then(() => list.querySelector('li[aria-selected="true"] a')?.click()); // of what was typed, not of what was typed before
    }
  });
  const open = () => {
    input.value = "";
    dialog.showModal();
    found = look();
  };
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      open();
    }
  });
  document.getElementById("search")?.addEventListener("click", open);
}

/** "#add-user" in the address, as the palette has it: that dialog is open, or what that button loads is loaded. */
function fromAddress() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (!target) return;
  if (target.matches("dialog:has(form[data-api])") && !target.open) {
    document.getElementById("palette").close();
    target.showModal();
  } else if (target.matches("button[data-load]")) {
    document.getElementById("palette").close();
    target.click();
  } else return;
  history.replaceState(null, "", location.pathname + location.search);
}
