// What happens, as sentences, newest first: <ul data-feed="node session alert">, told by the events of the live stream themselves.

const MOST = 50;

const untold = [];

/** An event of the live stream, for all feeds of this page. */
export function tellFeeds(type, frame) {
  untold.push([type, frame]);
  if (untold.length > MOST) untold.shift();
  if (untold.length === 1) requestAnimationFrame(tellAll);
}

/** What came since the last frame, at once: nobody reads a hundred a second, and each would move all the others down. */
function tellAll() {
  for (const [type, frame] of untold.splice(0)) {
    for (const feed of document.querySelectorAll("[data-feed]")) addToFeed(feed, type, frame);
  }
}

function addToFeed(feed, type, frame) {
  const wanted = feed.dataset.feed.split(/\s+/);
  const told = wanted.includes(type) ? words(type, frame) : "";
  if (!told) return;
  const item = document.createElement("li");
  const time = Object.assign(document.createElement("time"), { dateTime: frame.at, textContent: "just now" });
  time.dataset.ago = "";
  time.className = "muted";
  if (type === "alert") item.append(Object.assign(document.createElement("a"), { href: `/alerts/${frame.alert.id}`, textContent: frame.alert.title }), ": ");
  if (type === "session" && frame.device_id) item.append(`${frame.device_id} `);
  item.append(told, " ", time);
  nameAll(item);
  if (item.querySelector("[data-id]")) nameSoon(feed);
  feed.querySelector("[data-empty]")?.remove();
  feed.prepend(item);
  while (feed.children.length > MOST) feed.lastElementChild.remove();
}

const names = new Map();
const PLACES = { nod: "nodes", dev: "devices", usr: "users", pth: "paths", rly: "relays", cpath: "control-paths" };
const ID = /\b((nod|dev|usr|pth|rly|cpath)_[a-z0-9]+)\b/;

/** Ids in the words of an item become what people call these things: at once where that is known. */
function nameAll(item) {
  for (const text of [...item.childNodes].filter((each) => each.nodeType === Node.TEXT_NODE)) {
    const parts = text.data.split(ID); // words, id, its kind, words …
    if (parts.length === 1) continue;
    const made = [];
    for (let place = 0; place < parts.length; place += 3) {
      made.push(parts[place]);
      if (place + 1 < parts.length) made.push(named(parts[place + 1], PLACES[parts[place + 2]]));
    }
    text.replaceWith(...made);
  }
}

function named(id, place) {
  const name = names.get(id) || nameOf(id);
  const link = place === "devices" ? Object.assign(document.createElement("a"), { href: `/${place}/${id}` }) : document.createElement("span");
  link.textContent = name;
  if (name === id && !names.has(id)) Object.assign(link.dataset, { id, place });
  return link;
}

/** Events carry ids. What these are called is asked for a few at a time, and only of those that are still shown. */
function nameSoon(feed) {
  if (feed.dataset.naming !== undefined) return;
  feed.dataset.naming = "";
  setTimeout(async () => {
    const wanted = new Map([...feed.querySelectorAll("[data-id]")].map((link) => [link.dataset.id, link.dataset.place]));
    await Promise.all([...wanted].slice(0, 10).map(askName));
    for (const link of feed.querySelectorAll("[data-id]")) {
      if (!names.has(link.dataset.id)) continue;
      link.textContent = names.get(link.dataset.id);
      delete link.dataset.id;
    }
    delete feed.dataset.naming;
    if (feed.querySelector("[data-id]")) nameSoon(feed);
  }, 300);
}

async function askName([id, place]) {
  const response = await fetch(`/api/${place}/${encodeURIComponent(id)}`, { credentials: "same-origin" }).catch(() => null);
  const found = response?.ok ? await response.json() : null;
  names.set(id, found?.name || id);
}

/** What the page calls something, or its id. */
function nameOf(id) {
  return document.querySelector(`[data-row="${CSS.escape(id)}"] a`)?.textContent || id;
}

/** One event as a sentence; empty for those that need none. */
function words(type, frame) {
  const node = frame.name || (frame.node_id ? nameOf(frame.node_id) : "");
  switch (type) {
    case "session": {
      const who = frame.device_id ? "" : "An unknown peer ";
      return who + (frame.type === "PEER_CONNECTED" ? `connected to ${node}` : `left ${node}${frame.reason ? ` (${frame.reason.replaceAll("-", " ")})` : ""}`);
    }
    case "status":
      return frame.kind === "node.status" ? `${node} is ${frame.status}` : `${node}: ${String(frame.link_state).replace("_", " ")}${frame.reason ? `, ${plain(frame.reason)}` : ""}`;
    case "inventory":
      return frame.kind === "relay.tunnel" ? tunnelWords(frame) : frame.action ? changeWords(frame, node) : "";
    case "tree":
      return treeWords(frame);
    case "operation":
      return frame.kind === "operation.output" ? "" : `${frame.target_id || frame.operation_id}: ${frame.title || frame.state}`;
    case "alert":
      return alertWords(frame);
    default:
      return "";
  }
}

const DONE = { bind: "bound", cancel: "cancelled", failback: "failed back", failover: "failed over", forget: "forgotten", look: "looked at", retry: "retried", rm: "removed", rollback: "rolled back", stop: "stopped", switch: "switched over", unbind: "unbound" };
const CHANGES = { "admin.password": "admin's password changed", "admin.totp_begin": "second factor of an admin begun", "admin.totp_enable": "second factor of an admin switched on", "admin.totp_remove": "second factor of an admin removed", "enroll.claim": "invitation used", "enroll.invite": "invitation made", "enroll.revoke": "invitation withdrawn", "node.push": "peers pushed to node", "node.push-policy": "policy pushed to node", "node.status": "node's status set", "node.update-agent": "node's agent upgraded", "path.exit": "path's exit changed", "peers.apply": "peers changed", "relay.egress": "relay's egress hop changed", "relay.update-agent": "relay upgraded", "server.host_key_changed": "server shows another host key", "server.self": "controller's own machine added" };

/** What somebody did: `user.add` is a user added. */
function changeWords({ action, id }, node) {
  if (action === "chaos.harm") return `${actorWords(id)} is harmed on purpose (chaos)`;
  const [object, did = ""] = action.replaceAll("_", " ").split(".");
  const said = CHANGES[action] || `${object} ${DONE[did] || (/^[a-z]+$/.test(did) ? did.replace(/e?$/, "ed") : did)}`;
  return `${said}: ${node || nameOf(id)}`;
}

/** A part of the controller fell, or is back. */
function treeWords({ actor, kind, reason }) {
  const who = actorWords(actor);
  if (kind === "tree.restarted") return `${who} restarted`;
  if (kind === "tree.escalated") return `${who} gave up: ${plain(reason)}`;
  return `${who} ${plain(reason) || kind.slice(5)}`;
}

const PARTS = { io_loop: "I/O loop", node_link: "link of", relay_tunnel: "tunnel to" };

/** An actor as people call it. */
function actorWords(name) {
  const [kind, id] = name.split(":");
  return [PARTS[kind] || kind.replaceAll("_", " "), id].join(" ").trim();
}

/** Why an actor fell (actors/supervision says it for the log) in words for people. */
function plain(reason) {
  return (reason || "")
    .replace(/failed(?: to start| to stop)?: \w+: chaos: told to \w+/, "crashed on purpose (chaos)")
    .replace(" in Chaos and was fenced off", " on purpose (chaos) and was cut off")
    .replace("was fenced off", "was cut off")
    .replace(/failed: (\w+(: |$))/, "crashed: $1");
}

const tunnelStates = new Map();

/** That a tunnel stands, or fell; not each attempt to have it back. */
function tunnelWords({ relay_id: relay, endpoint, state, error }) {
  if (state === "connecting" || tunnelStates.get(relay) === state) return "";
  tunnelStates.set(relay, state);
  return `tunnel to ${nameOf(relay)} (${endpoint}): ${state}${error ? `, ${error}` : ""}`;
}

const alertStates = new Map();

/** That there is one, and what became of it; not that more was found of the same. */
function alertWords({ type, alert }) {
  const before = alertStates.get(alert?.id);
  alertStates.set(alert?.id, alert?.status);
  if (!alert || (type !== "alert" && before === alert.status)) return "";
  return type === "alert" ? alert.severity : alert.status === "open" ? "" : alert.status;
}
