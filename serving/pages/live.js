// The status page, live: what serves is asked for again every few seconds, signals come over the WebSocket.
// Text is never taken for HTML.
"use strict";

const PAUSE = 5000; // milliseconds between looks, and before the stream is asked for again
const line = document.getElementById("stream");
const signals = document.getElementById("signals");
const key = document.getElementById("key");

function element(name, attributes = {}, ...inside) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...inside);
  return made;
}

function headers() {
  return key.value ? { authorization: `Bearer ${key.value}` } : {};
}

function say(state, text) {
  line.className = state;
  line.textContent = text;
}

function share(value) {
  return `${Math.round(100 * value)} %`;
}

// A closed section: its signals, the strongest first; those without a prediction last.
function show(section) {
  const id = `signals-${section.horizon}`;
  const last = document.getElementById(id);
  if (last && last.dataset.timestamp > section.timestamp) return;
  const told = [...section.signals].sort((one, other) => (other.prediction ?? -Infinity) - (one.prediction ?? -Infinity));
  const rows = told.map((one) => element("tr", { title: one.signal },
    element("td", {}, one.symbol),
    element("td", {}, one.prediction === null ? "–" : one.prediction.toPrecision(6)),
    element("td", {}, share(one.coverage)),
    element("td", {}, one.novelty === null ? "–" : one.novelty.toFixed(3) + (one.abstained ? ", abstained" : ""))));
  const when = section.timestamp.replace("T", " ").replace("Z", " UTC");
  const facts = `bar of ${when}, coverage ${share(section.coverage)}`
    + `${section.complete ? "" : ", closed by its deadline"}, bundle ${section.bundle}`;
  const made = element("section", { id },
    element("h2", {}, `${section.horizon} `, element("small", {}, facts)),
    element("div", { className: "scroll" }, element("table", {},
      element("tr", {}, ...["symbol", "prediction", "coverage", "novelty"].map((name) => element("th", {}, name))), ...rows)));
  made.dataset.timestamp = section.timestamp;
  if (last) last.replaceWith(made);
  else signals.append(made);
}

async function newest(horizon) {
  const reply = await fetch(`signals/${encodeURIComponent(horizon)}`, { headers: headers() });
  if (reply.ok) (await reply.json()).sections.forEach(show);
}

function listen() {
  const url = new URL("stream", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = key.value ? new WebSocket(url, ["tenor", `key.${key.value}`]) : new WebSocket(url);
  let opened = false;
  socket.onopen = () => {
    opened = true;
    say("live", "live: signals arrive as sections close");
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "hello") Object.keys(message.horizons).forEach(newest);
    else show(message);
  };
  socket.onclose = ({ code, reason }) => {
    const why = opened ? `${code} ${reason}` : "it was refused: a key may be needed";
    say("lost", `no stream (${why.trim()}); asked for again every ${PAUSE / 1000} s`);
    setTimeout(listen, PAUSE);
  };
}

async function look() {
  try {
    const reply = await fetch("./", { headers: headers() });
    if (reply.ok) {
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
      document.title = fresh.title;
      document.getElementById("status").replaceWith(fresh.getElementById("status"));
    }
  } catch {
    say("lost", "the service does not answer");
  }
  setTimeout(look, PAUSE);
}

listen();
setTimeout(look, PAUSE);
