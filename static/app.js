// What every page does in the browser: forms and buttons that call the API, dialogs, toasts, theme, times.
// Pages work as plain HTML for reading; this adds the acting and, through live.js, the staying up to date. It starts the others.

import { showClocks, startCharts } from "/static/charts.js";
import { startLive, typing } from "/static/live.js";
import { ours } from "/static/html.js";
import { startPalette } from "/static/palette.js";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// -- the API

/** Calls the API. Returns {ok, status, data}; data is the parsed body, or null. Goes to the login page when signed out,
 * unless something has been typed that would be lost. */
async function api(method, path, body, { wait = true } = {}) {
  const options = { method, headers: { Accept: "application/json" }, credentials: "same-origin" };
  if (!wait) options.headers.Prefer = "respond-async";
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    return { ok: false, status: 0, data: { error: "The controller does not answer. Is it running?" } };
  }
  const text = await response.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    data = { error: text.slice(0, 200) };
  }
  if (response.status === 401 && typing()) {
    data = { error: "You are signed out. Sign in in another tab, then try again here: what you typed is kept." };
  } else if (response.status === 401 && !location.pathname.startsWith("/login")) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  return { ok: response.ok, status: response.status, data };
}

const sentence = (data) => data?.error || data?.detail || "It did not work, and the controller did not say why.";

/** The same, and what to do about it: two sentences, as the API's errors end without a full stop. */
const advice = (data) => (data?.remedy ? `${sentence(data).replace(/(?<![.!?:])$/, ".")} ${data.remedy}` : sentence(data));

// -- toasts

function toast(text, { bad = false, undo, link } = {}) {
  const box = document.createElement("div");
  box.className = bad ? "toast bad" : "toast";
  box.setAttribute("role", bad ? "alert" : "status");
  box.append(text);
  if (undo) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "small", textContent: "Undo" });
    button.addEventListener("click", async () => {
      box.remove();
      const answer = await api(undo.method, undo.path, undo.body);
      toast(answer.ok ? "Undone." : advice(answer.data), { bad: !answer.ok });
      refresh();
    });
    box.append(button);
  }
  if (link) box.append(Object.assign(document.createElement("a"), { href: link.href, textContent: link.text }));
  $("#toasts").append(box);
  setTimeout(() => box.remove(), bad ? 12000 : undo || link ? 10000 : 5000);
}

/** Something changed here: the live regions of this page are fetched again, without waiting for their events. */
function refresh() {
  document.dispatchEvent(new CustomEvent("cox:refresh"));
}

/** New alerts, on whatever page one is: the first at once, and those that come with it as a number. */
let more = 0;
document.addEventListener("cox:alert", ({ detail: alert }) => {
  more += 1;
  if (more > 1) return;
  const where = alert.detail?.node_name ? `, ${alert.detail.node_name}` : "";
  toast(`${alert.severity}: ${alert.title}${where}`, { bad: alert.severity === "critical", link: { href: `/alerts/${alert.id}`, text: "Show it" } });
  setTimeout(() => {
    if (more > 1) toast(`${more - 1} more alert${more === 2 ? "" : "s"}`, { link: { href: "/alerts", text: "Show them" } });
    more = 0;
  }, 2000);
});

// -- forms: <form data-api="PATCH /api/nodes/x" data-done="Saved." data-then="reload|close|/path">

const READ = {
  int: (field) => (field.value.trim() === "" ? undefined : Number.parseInt(field.value, 10)),
  bool: (field) => field.checked,
  list: (field) => field.value.split(/[\s,]+/).filter(Boolean),
  path: () => undefined, // only for "{name}" in the address
  each: (field) => field.value, // several fields of one name are a list
  "from-now": (field) => new Date(Date.now() + Number(field.value) * 1000).toISOString(), // seconds
  picked: (field) => [...field.selectedOptions].map((option) => option.value),
  text: (field) => field.value,
};

function kindOf(field) {
  return field.dataset.type || (field.type === "checkbox" ? "bool" : field.multiple ? "picked" : "text");
}

/** The body of a form. Optional fields that are empty are left out; "a.b" nests. */
function bodyOf(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || (field.matches(":disabled") && !field.dataset.needs) || (field.type === "radio" && !field.checked)) continue;
    const value = READ[kindOf(field)](field);
    if (value === undefined || (value.length === 0 && field.dataset.optional !== undefined)) continue;
    const path = field.name.split(".");
    const last = path.pop();
    let place = body;
    for (const part of path) place = place[part] ??= {};
    if (kindOf(field) !== "each") place[last] = value;
    else place[last] = [...(place[last] ?? []), ...(value === "" ? [] : [value])];
  }
  return body;
}

function tell(form, text, kind = "problem") {
  let box = $(".told", form);
  if (!box) {
    box = Object.assign(document.createElement("p"), { className: "told" });
    box.setAttribute("role", "alert");
    form.prepend(box);
  }
  box.className = `told ${kind}`;
  box.textContent = text;
  box.hidden = !text;
  if (text) box.scrollIntoView({ block: "nearest" }); // it is at the top, and the button at the end
  return box;
}

/** Which field of a form does an error sentence name? The API begins with the field's name. */
const named = (field, text) => {
  const name = text.split(":")[0].trim();
  return field.name && (field.name === name || field.name.endsWith(`.${name}`));
};

function mark(form, text) {
  for (const field of form.elements) {
    if (named(field, text)) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  const wrong = $('[aria-invalid="true"]', form);
  wrong?.closest("details")?.setAttribute("open", "");
  wrong?.focus();
}

/** What went wrong with what a form asked for, in the words of the form: its label in place of the field's name. */
function refused(form, data) {
  const [field, another] = [...form.elements].filter((each) => each.type !== "hidden" && named(each, sentence(data)));
  const label = field?.closest("label")?.firstChild?.textContent.trim();
  const text = advice(data);
  const rest = text.slice(text.indexOf(":"));
  tell(form, another ? rest.slice(1).trim() : label ? label + rest : text); // those of one name have labels of their own
  mark(form, sentence(data));
}

/** Somebody else saved first: say what differs, keep what was typed, and let the next save go on top of theirs.
 * data-of: what the record calls a field that has another name in the request. */
async function onStale(form, answer) {
  const record = form.dataset.record ? await api("GET", fill(form.dataset.record, form)) : null;
  const version = form.elements.namedItem("version");
  if (!record?.ok || !version) return tell(form, advice(answer.data));
  const theirs = [];
  for (const field of form.elements) {
    if (!field.name || field === version || (field.matches(":disabled") && !field.dataset.needs)) continue;
    const several = kindOf(field) === "each";
    const fields = several ? $$(`[name="${field.name}"]`, form) : [field];
    if (field !== fields[0] || (field.dataset.options && !several)) continue;
    const now = (field.dataset.of || field.name).split(".").reduce((at, part) => at?.[part], record.data);
    const before = kindOf(field) === "bool" ? field.defaultChecked : fields.map((each) => each.defaultValue).filter(Boolean).join(" ");
    const called = (value) => [...(field.options ?? [])].find((option) => option.value === value)?.textContent ?? value;
    const same = String((Array.isArray(now) ? now.join(" ") : now) ?? "") === String(before ?? "");
    if (now !== undefined && !same) theirs.push(`${field.name}: ${Array.isArray(now) ? now.map(called).join(" ") || "none" : now}`);
  }
  version.value = record.data.version;
  const what = theirs.length ? `now ${theirs.join("; ")}` : "in fields that are not shown here";
  tell(form, `Somebody else changed this meanwhile (${what}). What you typed is still here: save again to put it on top of theirs.`, "notice");
}

async function submit(form) {
  const [method, path] = form.dataset.api.split(" ");
  const button = $('button[type="submit"], button:not([type])', form);
  if (button?.hasAttribute("aria-busy")) return; // pressed twice
  button?.setAttribute("aria-busy", "true");
  const answer = await api(method, fill(path, form), method === "DELETE" ? undefined : bodyOf(form), waiting(form));
  button?.removeAttribute("aria-busy");
  if (!answer.ok) {
    if (answer.status === 409 && answer.data?.current !== undefined) return onStale(form, answer);
    return refused(form, answer.data);
  }
  tell(form, "");
  form.dispatchEvent(new CustomEvent("cox:done", { bubbles: true, detail: answer.data }));
  done(form, answer.data);
}

/** data-async: the answer is the operation that was started, and its page shows how it goes. */
const waiting = (element) => ({ wait: element.dataset.async === undefined });

/** "{id}" in a path is the value of the form's field "id". */
function fill(path, form) {
  return path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(form.elements.namedItem(name)?.value ?? ""));
}

/** data-undo="POST /api/…" takes back what was done just now; data-undo-body: what it says. */
function undoing(element) {
  const [method, path] = element.dataset.undo.split(" ");
  const filled = element instanceof HTMLFormElement ? fill(path, element) : path;
  return { method, path: filled, body: JSON.parse(element.dataset.undoBody || "{}") };
}

function done(element, data) {
  const undo = element.dataset.undo && undoing(element);
  if (element.dataset.show) return showOnce(element, data);
  if (element.dataset.save !== undefined) saveFile(data.name, data.text);
  const then = element.dataset.then || "close";
  if (then.startsWith("/")) document.body.dataset.leaving = "";
  if (then.startsWith("/")) return location.assign(then.replace(/\{(\w+)\}/g, (_, key) => encodeURIComponent(data?.[key] ?? "")));
  const operation = element.dataset.async !== undefined && data?.id;
  const link = operation ? { href: `/operations/${operation}`, text: "Show how it goes" } : undefined;
  if (element.dataset.done) toast(element.dataset.done, { undo, link });
  if (then === "reload") return location.reload();
  element.closest("dialog")?.close();
  if (element instanceof HTMLFormElement && then === "close") element.reset();
  refresh();
  if (element.dataset.next) openDialog($(element.dataset.next), data); // what is mostly done next, with what came of this
}

/** data-save: the answer is a file, {name, text}, which becomes a download. */
function saveFile(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/octet-stream" }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function showValue(place, value) {
  if (place instanceof HTMLImageElement) place.src = value ? `data:image/png;base64,${value}` : "data:,";
  else if (place instanceof HTMLTimeElement) {
    place.dateTime = value || "";
    showTimes(place.parentElement);
  } else place.textContent = Array.isArray(value) ? value.join("\n") : value ?? "";
}

/** What is shown this once and never again: a token's secret, recovery codes, an invite. */
function showOnce(element, data) {
  const panel = $(element.dataset.show);
  for (const place of $$("[data-field]", panel)) showValue(place, data?.[place.dataset.field]);
  panel.addEventListener("close", () => $$("[data-field]", panel).forEach((place) => showValue(place, "")), { once: true });
  element.closest("dialog")?.close();
  if (element instanceof HTMLFormElement) element.reset();
  panel.showModal();
  refresh();
}

// -- buttons: <button data-api="POST /api/nodes/x/push" data-confirm="What will happen" data-done="Pushed.">

async function press(button) {
  if (button.hasAttribute("aria-busy")) return; // pressed twice
  if (button.dataset.confirm && !(await confirmed(button))) return;
  const [method, path] = button.dataset.api.split(" ");
  button.setAttribute("aria-busy", "true");
  const answer = await api(method, path, method === "DELETE" ? undefined : JSON.parse(button.dataset.body || "{}"), waiting(button));
  button.removeAttribute("aria-busy");
  if (answer.status === 409) refresh(); // somebody else was first: what is shown is older than what is
  if (!answer.ok) return toast(advice(answer.data), { bad: true });
  done(button, answer.data);
}

function confirmed(button) {
  const dialog = $("#confirm");
  $("[data-text]", dialog).textContent = button.dataset.confirm;
  const yes = $('button[value="yes"]', dialog);
  yes.textContent = button.dataset.yes || button.textContent.trim();
  yes.className = button.classList.contains("danger") ? "danger primary" : "primary";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

document.addEventListener("close", ({ target }) => {
  for (const secret of $$('input[type="password"]', target)) secret.value = ""; // whoever comes next may open it again
  if (target.dataset.reload !== undefined) location.reload();
  else if (document.activeElement === document.body || target.contains(document.activeElement)) $("#content")?.focus(); // its button is gone
}, true);

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.api) return;
  event.preventDefault();
  submit(form);
});

document.addEventListener("click", (event) => {
  const element = event.target.closest("[data-api], [data-open], [data-load], [data-plan], [data-fetch], [data-close], [data-copy], [data-dismiss], #theme, #menu");
  if (!element || element instanceof HTMLFormElement) return;
  if (element.dataset.api) press(element);
  else if (element.dataset.open) openDialog($(element.dataset.open), JSON.parse(element.dataset.set || "{}"));
  else if (element.dataset.close !== undefined) element.closest("dialog").close("no");
  else if (element.dataset.load) load(element);
  else if (element.dataset.plan) showPlan(element);
  else if (element.dataset.fetch) fillIn(element);
  else if (element.dataset.copy) copy(element);
  else if (element.dataset.dismiss !== undefined) dismiss(element.closest("[data-dismissible]"));
  else if (element.id === "theme") nextTheme();
  else if (element.id === "menu") toggleMenu(element);
});

/** Opens a dialog; data-set='{"name": "value"}' on the button fills its fields. null: it has nothing of the kind. */
async function openDialog(dialog, values) {
  const form = $("form", dialog);
  if (form && Object.keys(values).length > 0) form.reset(); // what was typed, or allowed, about another one
  for (const [name, value] of Object.entries(values)) {
    $$(`[name="${name}"]`, dialog).forEach((field, place) => preset(field, Array.isArray(value) ? value[place] : value));
    for (const place of $$(`[data-field="${name}"]`, dialog)) place.textContent = value;
  }
  if (form) {
    tell(form, "");
    mark(form, "");
    follow(form);
    outdated(form);
  }
  const filled = fillChoices(dialog);
  if ($("select[data-wanted]", dialog) && !(await filled)) return; // saved like this, it would lose what it has
  dialog.showModal();
}

/** What a field says of the record that is being changed, so that a save over somebody else's can tell what they changed. */
function preset(field, value) {
  field.disabled = value === null;
  field.value = field.defaultValue = value ?? "";
  if (field.dataset.options) field.dataset.wanted = value ?? ""; // its choices come later
  const group = field.closest("fieldset");
  if (group) group.hidden = [...group.elements].every((each) => each.disabled);
}

/** What can be chosen may be a thousand things, so it comes when somebody wants to choose: <select data-options="/ui/options/nodes">. */
async function fillChoices(dialog) {
  const selects = $$("select[data-options]", dialog);
  let all = true;
  for (const url of new Set(selects.map((select) => select.dataset.options))) {
    const response = await fetch(url, { credentials: "same-origin" });
    if (!response.ok) {
      toast("What can be chosen could not be fetched; close this and try again.", { bad: true });
      all = false;
      continue;
    }
    const html = ours(await response.text());
    for (const select of selects.filter((each) => each.dataset.options === url)) {
      const chosen = select.dataset.wanted ?? select.value;
      delete select.dataset.wanted;
      const fresh = document.createElement("template");
      fresh.innerHTML = html;
      select.replaceChildren(...$$('option[value=""]', select), fresh.content);
      select.value = chosen;
    }
  }
  return all;
}

/** Asks with some fields of the form, and puts one value of the answer into another field. */
async function fillIn(button) {
  const form = button.closest("form");
  const [method, path] = button.dataset.fetch.split(" ");
  const wanted = button.dataset.take.split(" ");
  for (const field of form.elements) if (wanted.includes(field.name) && !field.reportValidity()) return;
  const body = Object.fromEntries(Object.entries(bodyOf(form)).filter(([name]) => wanted.includes(name)));
  button.setAttribute("aria-busy", "true");
  const answer = await api(method, path, body);
  button.removeAttribute("aria-busy");
  if (!answer.ok) return refused(form, answer.data);
  tell(form, "");
  mark(form, "");
  form.elements.namedItem(button.dataset.fill).value = answer.data[button.dataset.fill];
}

/** What submitting the form would do, without doing it. */
async function showPlan(button) {
  const form = button.closest("form");
  if (!form.reportValidity()) return;
  const answer = await api("POST", button.dataset.plan, bodyOf(form));
  const place = $(button.dataset.into);
  place.classList.add("hidden");
  if (!answer.ok) return refused(form, answer.data);
  tell(form, "");
  mark(form, "");
  const stages = answer.data.stages?.map((stage) => [stage.title, ...stage.changes.map((change) => `  ${change}`)].join("\n"));
  const lines = [...(stages || answer.data.steps), ...answer.data.notes];
  place.textContent = lines.join("\n") || "Nothing would change.";
  place.classList.remove("hidden");
}

/** A plan is of what the form said when it was asked for. */
function outdated(form) {
  for (const button of $$("[data-plan]", form)) $(button.dataset.into).classList.add("hidden");
}

/** What the node would be told, as the switches stand. */
async function preview(form) {
  const wanted = form.dataset.take.split(" ");
  const body = Object.fromEntries(Object.entries(bodyOf(form)).filter(([name]) => wanted.includes(name)));
  const answer = await api("POST", form.dataset.preview, body);
  const { pre_up = [], post_up = [] } = answer.data || {};
  $(form.dataset.into).textContent = answer.ok ? [...(pre_up || []), ...(post_up || [])].join("\n") || "No rules." : advice(answer.data);
}

/** data-needs: a switch that means nothing while another one is off. data-only="role relay": a part that is about one choice only. */
function follow(form) {
  for (const part of $$("[data-only]", form)) {
    const [name, value] = part.dataset.only.split(" ");
    part.disabled = part.hidden = form.elements.namedItem(name).value !== value;
  }
  for (const field of $$("[data-needs]", form)) {
    const on = form.elements.namedItem(field.dataset.needs).checked;
    if (on === !field.disabled) continue;
    field.disabled = !on;
    field.checked = on && field.defaultChecked;
  }
}

document.addEventListener("reset", (event) => setTimeout(follow, 0, event.target)); // its fields are reset after this

document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (form) follow(form);
  if (form) outdated(form);
  if (form?.dataset.preview && form.dataset.take.split(" ").includes(event.target.name)) preview(form);
});

/** The rules are shown when somebody opens them, as the switches stand then. */
document.addEventListener("toggle", ({ target }) => {
  const form = target.open && target.matches("[data-preview] details") && target.closest("form");
  if (form) preview(form);
}, true);

/** Fetches a fragment that is only wanted when somebody asks for it. */
async function load(button) {
  button.setAttribute("aria-busy", "true");
  const response = await fetch(button.dataset.load, { credentials: "same-origin" });
  button.removeAttribute("aria-busy");
  if (response.ok) $(button.dataset.into).innerHTML = ours(await response.text());
  else toast("It could not be fetched; try again.", { bad: true });
}

async function copy(button) {
  const text = $(button.dataset.copy).textContent;
  await navigator.clipboard.writeText(text.trim());
  toast("Copied.");
}

/** What somebody has read and does not want to read again, in this browser, until it says something else. */
function dismiss(notice) {
  localStorage.setItem("dismissed", notice.dataset.dismissible);
  notice.hidden = true;
}

// -- theme and menu

function nextTheme() {
  const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
}

function toggleMenu(button) {
  const open = $(".side").classList.toggle("open");
  button.setAttribute("aria-expanded", String(open));
}

// -- times: <time datetime="…" data-ago>

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const DAY = new Intl.DateTimeFormat("en", { dateStyle: "medium" });
const FAR = 60 * 86400; // nobody plans by "in 1,825 days"
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function showTimes(root = document) {
  for (const time of $$('time[data-ago]:not([datetime=""])', root)) {
    const at = new Date(time.dateTime);
    const passed = (at - Date.now()) / 1000;
    const [unit, seconds] = UNITS.find(([, size]) => Math.abs(passed) >= size) || UNITS.at(-1);
    const text = Math.abs(passed) >= FAR ? DAY.format(at) : Math.abs(passed) < 5 ? "just now" : RELATIVE.format(Math.round(passed / seconds), unit);
    if (time.textContent !== text) time.textContent = text;
    if (!time.title) time.title = FULL.format(at);
  }
}

/** On a phone each row of a table is a card (app.css), in which every cell says what it is. */
function labelCells(root = document) {
  for (const table of $$("table", root).concat(root.closest?.("table") ?? [])) {
    const titles = $$("thead th", table).map((title) => (title.classList.contains("fit") ? "" : title.textContent));
    for (const row of $$("tbody tr", table)) [...row.cells].forEach((cell, place) => (cell.dataset.label = titles[place] ?? ""));
  }
}

for (const notice of $$("[data-dismissible]")) notice.hidden = localStorage.getItem("dismissed") === notice.dataset.dismissible;
startPalette();
showTimes();
labelCells();
setInterval(showTimes, 5000);
document.addEventListener("cox:shown", (event) => {
  showTimes(event.target);
  labelCells(event.target);
  showClocks(event.target);
});
startCharts();
if (document.body.dataset.live !== undefined) startLive();
