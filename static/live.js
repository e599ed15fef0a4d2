// Keeps a page as the controller is. One WebSocket tells what changed; the HTML of what is shown is fetched from the server that
// rendered the page, a row at a time where rows are known by their key. What is out of view waits until it is scrolled into view.
//
//   <tbody data-rows="/ui/rows/nodes" data-topics="node" data-key="node_id">   rows <tr data-row="nod_…">
//   <section data-fragment="/ui/fragments/counters" data-topics="node session">
//
// Feeds (feed.js) are told the events themselves.

import { tellFeeds } from "/static/feed.js";
import { ours } from "/static/html.js";

const LEAST_MS = 150; // between two fetches of a whole piece
const ROWS_MS = 40; // of some rows: they are small, and made once for all browsers
const AGAIN_MS = 1000;
const RETRY_MS = [250, 500, 1000, 2000, 4000, 8000];

const regions = [];
let seq = document.body.dataset.seq || ""; // of the newest event when the page was rendered: nothing is missed in between
let failures = 0;

/** Somebody has a form open, which another page in its place would lose. */
export const typing = () => document.querySelector("dialog[open] form[data-api]") !== null;

const FOCUSABLE = "a[href], button, input, select, textarea";

/** Where in an element somebody is; -1: nowhere. */
const whereIn = (element) => [...element.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);

/** Who was on a button of an old version is on the same one of the new, or where that is gone on one beside it: never at the top. */
function focusAt(fresh, at) {
  if (at < 0) return;
  const there = [...fresh.querySelectorAll(FOCUSABLE)];
  (there[at] ?? there.at(-1) ?? document.querySelector("#content"))?.focus();
}

/** Puts a newer version in an element's place. */
function swap(old, fresh) {
  const at = whereIn(old);
  old.replaceWith(fresh);
  focusAt(fresh, at);
}

/** What a row says: it is highlighted when that changed, and not for what moves by itself (<td data-moves>), as an age does. */
function said(row) {
  const copy = row.cloneNode(true);
  for (const moving of copy.querySelectorAll("[data-moves]")) moving.remove();
  for (const time of copy.querySelectorAll("time")) time.textContent = time.dateTime;
  return copy.textContent;
}

class Region {
  constructor(element) {
    this.element = element;
    this.topics = (element.dataset.topics || "").split(/\s+/);
    this.url = element.dataset.rows || element.dataset.fragment;
    this.byRow = element.dataset.rows !== undefined;
    this.keys = new Set(); // rows that changed
    this.inView = new Set(); // rows that can be seen
    this.anew = false; // something changed of which there may have been no event yet
    this.timer = 0;
    this.last = 0;
    this.visible = false;
    this.all = element.dataset.soon !== undefined; // what takes a while is not waited for when the page is rendered
    new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      if (this.visible) this.plan();
    }).observe(element);
    this.rows = new IntersectionObserver((entries) => this.look(entries), { rootMargin: "100px" });
    for (const row of element.querySelectorAll("[data-row]")) this.rows.observe(row);
  }

  look(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.inView.add(target.dataset.row);
      else this.inView.delete(target.dataset.row);
    }
    this.plan();
  }

  wants(type) {
    return this.topics.some((topic) => topic === "*" || type === topic || type.startsWith(`${topic}.`));
  }

  /** Something changed; key: which row, null: maybe any. What is told of rows of other pages of the table is not for this one. */
  note(key, type) {
    if (!this.byRow || !key) this.all = true;
    else if (this.row(key)) this.keys.add(key);
    else if (["node", "status", "session"].includes(type)) return;
    else this.all = true;
    this.plan();
  }

  row(key) {
    return this.element.querySelector(`[data-row="${CSS.escape(key)}"]`);
  }

  /** The rows to fetch now: those that changed and can be seen; the others wait until they can. */
  due() {
    return [...this.keys].filter((key) => this.inView.has(key)).slice(0, 100);
  }

  plan() {
    if (this.timer || !this.visible || document.hidden || (!this.all && this.due().length === 0)) return;
    this.timer = setTimeout(() => this.fetch(), Math.max(0, this.last + (this.all || !this.byRow ? LEAST_MS : ROWS_MS) - performance.now()));
  }

  async fetch() {
    this.last = performance.now();
    const all = this.all || !this.byRow;
    const keys = this.due();
    if (!all && keys.length === 0) {
      this.timer = 0; // they have been scrolled out of view meanwhile
      return;
    }
    for (const key of keys) this.keys.delete(key);
    if (all) this.keys.clear();
    this.all = false;
    const address = new URL(this.url, location.href);
    const alone = this.element.dataset.alone !== undefined; // it is about something else than the page
    for (const [name, value] of alone ? [] : new URLSearchParams(location.search)) address.searchParams.append(name, value);
    if (!all) address.searchParams.set("keys", keys.join(","));
    if (seq !== null && !this.anew) address.searchParams.set("seen", seq); // what shows that event is made once for all browsers
    this.anew = false;
    try {
      const response = await fetch(address, { credentials: "same-origin" });
      if ("leaving" in document.body.dataset) return;
      if (response.status === 401 && typing()) return; // saving says so
      if (response.status === 401) return location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
      if (response.status === 404 && !this.byRow) return gone();
      if (response.ok) this.show(await response.text(), all, keys);
    } catch {
      this.all = true; // the controller does not answer: again in a while
      this.last = performance.now() + AGAIN_MS;
    } finally {
      this.timer = 0;
    }
    this.plan();
  }

  show(html, all, keys) {
    const fresh = document.createElement("template");
    fresh.innerHTML = ours(html.trim());
    if (!this.byRow) {
      this.showWhole(fresh);
    } else {
      this.showRows(fresh.content, all, keys);
    }
    this.element.dispatchEvent(new CustomEvent("cox:shown", { bubbles: true }));
  }

  showWhole(fresh) {
    if (this.html === fresh.innerHTML) return;
    this.html = fresh.innerHTML;
    this.element.querySelectorAll("details").forEach((old, index) => {
      const details = fresh.content.querySelectorAll("details")[index];
      if (details) details.open = old.open;
    });
    const at = whereIn(this.element);
    this.element.replaceChildren(fresh.content);
    focusAt(this.element, at);
  }

  showRows(content, all, keys) {
    const shown = new Map([...this.element.querySelectorAll("[data-row]")].map((row) => [row.dataset.row, row]));
    const came = new Map([...content.querySelectorAll("[data-row]")].map((row) => [row.dataset.row, row]));
    for (const [key, row] of came) {
      const old = shown.get(key);
      if (!old) {
        if (this.element.dataset.newest !== undefined) this.element.prepend(row);
        else this.element.append(row);
        row.classList.add("fresh");
        this.rows.observe(row);
      } else if (old.dataset.html !== row.outerHTML && !this.inView.has(key)) {
        this.keys.add(key); // it is drawn when somebody can see it
      } else if (old.dataset.html !== row.outerHTML) {
        row.dataset.html = row.outerHTML; // as it came: showing times and highlights changes what is in the page
        if (said(old) !== said(row)) row.classList.add("fresh");
        swap(old, row);
        this.rows.unobserve(old);
        this.rows.observe(row);
      }
    }
    const gone = all ? [...shown.keys()].filter((key) => !came.has(key)) : keys.filter((key) => !came.has(key));
    for (const key of gone) shown.get(key)?.remove();
    if (all && came.size === 0) this.element.replaceChildren(content);
  }
}

const CLASS = { PEER_CONNECTED: "session", PEER_DISCONNECTED: "session", HANDSHAKE_UP: "node", HANDSHAKE_DOWN: "node", ERROR: "node", alert_updated: "alert" };

function onEvent(frame) {
  if (typeof frame.seq === "number") seq = frame.seq;
  if (frame.type === "dropped" || frame.type === "gap") return everything();
  const type = CLASS[frame.type] || frame.type;
  for (const region of regions) {
    if (region.wants(type)) region.note(frame[region.element.dataset.key || "node_id"] || null, type);
  }
  if (frame.type === "alert" && frame.alert) document.dispatchEvent(new CustomEvent("cox:alert", { detail: frame.alert }));
  tellFeeds(type, frame);
  for (const form of document.querySelectorAll("form[data-watch]")) warn(form, type, frame);
}

function everything() {
  for (const region of regions) {
    region.anew = true;
    region.note(null);
  }
}

/** What this page is about was removed, by somebody else or another window: nothing on it means anything any more. */
function gone() {
  const content = document.getElementById("content");
  if (content.inert) return;
  content.inert = true;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  const back = document.querySelector('.nav a[aria-current="page"]');
  const told = Object.assign(document.createElement("p"), { className: "notice gone", textContent: "What this page showed was removed. " });
  told.setAttribute("role", "alert");
  told.append(Object.assign(document.createElement("a"), { href: back?.href || "/", textContent: `Back to ${back?.textContent || "the fleet"}` }));
  content.before(told);
}

/** A form that shows a record which somebody else just changed says so at once. */
function warn(form, type, frame) {
  const [topic, id] = form.dataset.watch.split(" ");
  if (type !== topic || !Object.values(frame).includes(id) || form.getAttribute("aria-busy")) return;
  let box = form.querySelector(".elsewhere");
  if (!box) {
    box = Object.assign(document.createElement("p"), { className: "elsewhere notice" });
    box.setAttribute("role", "status");
    form.prepend(box);
  }
  box.textContent = "Somebody just changed this. What you see may be older; saving will show you what changed.";
}

function say(state) {
  const badge = document.getElementById("live");
  if (!badge) return;
  badge.dataset.state = state;
  badge.textContent = { open: "Live", connecting: "Connecting…", lost: "Not connected: what you see may be old" }[state];
}

function connect() {
  say(failures === 0 ? "connecting" : "lost");
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws/events?after=${seq}`);
  socket.addEventListener("open", () => {
    failures = 0;
    say("open"); // what was missed follows by itself, and is said to be lost where it is (`dropped`)
  });
  socket.addEventListener("message", (message) => onEvent(JSON.parse(message.data)));
  socket.addEventListener("close", () => {
    failures += 1;
    say("lost");
    const most = RETRY_MS[Math.min(failures, RETRY_MS.length) - 1];
    setTimeout(connect, most * (0.5 + Math.random() / 2));
  });
}

/** Begins to follow. Called once, by app.js, on pages that show something live. */
export function startLive() {
  for (const element of document.querySelectorAll("[data-rows], [data-fragment]")) regions.push(new Region(element));
  document.addEventListener("visibilitychange", () => regions.forEach((region) => region.plan()));
  document.addEventListener("cox:refresh", everything);
  connect();
}
