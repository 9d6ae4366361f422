// The gate's page. What it knows, it knows from the gate's API; the login lives in this page's memory alone, so
// that closing the page ends it. Cameras are kept in step by the time of day that each playlist tells.
"use strict";

const $ = (id) => document.getElementById(id);
const state = { token: "", staff: "", incident: null, rows: [], span: null, cameras: [], at: 0, playing: false, last: 0 };
const FOOTAGE = new Set(["footage", "damaged"]);
const STRIP = { footage: "footage", damaged: "damaged", deleted: "deleted", expired: "deleted", open: "open", future: "" };

async function call(method, path, body) {
  const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The gate does not answer. Is this machine still on the network?");
  }
  const facts = await answer.json();
  if (answer.ok) return facts;
  if (answer.status === 401 && state.staff) leave();
  throw new Error(facts.hint ? `${facts.message}. ${facts.hint}` : facts.message);
}

function on(id, event, act) {
  $(id).addEventListener(event, async (happened) => {
    happened.preventDefault();
    $("problem").hidden = true;
    try {
      await act(happened);
    } catch (error) {
      complain(error.message);
    }
  });
}

function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

function element(name, text = "", classes = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

// --- who and why ---

// Who comes back from the site's OpenID provider has a cookie that no script reads; the gate knows it.
async function arrive() {
  const ways = await call("GET", "/v1/login");
  $("provider").hidden = !ways.oidc;
  if (!ways.oidc) return;
  const right = await fetch("/v1/whoami");
  if (right.ok) await welcome((await right.json()).staff_id);
}
arrive().catch((error) => complain(error.message));

async function welcome(staff) {
  state.staff = staff;
  $("login").hidden = true;
  $("logout").hidden = false;
  await askWhy();
}

on("login", "submit", async () => {
  const form = new FormData($("login"));
  const answer = await call("POST", "/v1/login", Object.fromEntries(form));
  $("login").reset();
  state.token = answer.token;
  await welcome(answer.staff_id);
});

function leave() {
  stop();
  Object.assign(state, { token: "", staff: "", incident: null });
  for (const id of ["why", "find", "view", "close", "logout"]) $(id).hidden = true;
  $("login").hidden = false;
  $("who").textContent = "";
}

on("logout", "click", async () => {
  await call("POST", "/v1/logout", {});
  leave();
});

async function askWhy() {
  $("who").textContent = state.staff;
  const right = await call("GET", "/v1/whoami");
  if (!right.may_see_footage) throw new Error(`You cannot see footage: ${right.reason}.`);
  const open = await call("GET", "/v1/incidents");
  const buttons = open.map((incident) => {
    const button = element("button", `Go on: ${incident.reference} (${incident.purpose}, ${incident.opened_by})`);
    button.addEventListener("click", () => enter(incident));
    return button;
  });
  $("incidents").replaceChildren(...buttons);
  $("why").hidden = false;
}

on("open", "submit", async () => {
  enter(await call("POST", "/v1/incidents", Object.fromEntries(new FormData($("open")))));
});

function enter(incident) {
  state.incident = incident;
  $("who").textContent = `${state.staff} · ${incident.reference} (${incident.purpose})`;
  $("why").hidden = true;
  $("find").hidden = $("close").hidden = false;
  last(15);
}

on("close", "click", async () => {
  await call("POST", `/v1/incidents/${state.incident.incident_id}/close`, {});
  stop();
  $("find").hidden = $("view").hidden = $("close").hidden = true;
  await askWhy();
});

// --- when and where ---

const form = $("search").elements;
$("zone").textContent = `Times are those of this machine: ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;

function local(moment) {
  const shifted = new Date(moment - moment.getTimezoneOffset() * 60000);
  return shifted.toISOString().slice(0, 19);
}

function last(minutes) {
  const now = new Date();
  form.to.value = local(now);
  form.from.value = local(new Date(now - minutes * 60000));
}

for (const button of document.querySelectorAll("[data-minutes]")) {
  button.addEventListener("click", () => last(Number(button.dataset.minutes)));
}

on("search", "submit", async () => {
  const start = new Date(form.from.value), end = new Date(form.to.value);
  if (!(start < end)) throw new Error("The end lies before the beginning.");
  const body = { incident_id: state.incident.incident_id, start: start.toISOString(), end: end.toISOString() };
  const rows = await call("POST", "/v1/search", body);
  const wanted = form.filter.value.trim().toLowerCase();
  state.span = { start, end };
  state.rows = rows.filter((row) => [row.camera, row.group, row.place].some((one) => one.toLowerCase().includes(wanted)));
  show();
});

function show() {
  const cameras = Map.groupBy(state.rows, (row) => row.camera);
  const length = state.span.end - state.span.start;
  const lines = [...cameras].map(([name, rows]) => {
    const line = element("div", "", "camera"), label = element("label"), box = element("input");
    const text = element("span", name);
    box.type = "checkbox";
    box.value = name;
    box.checked = cameras.size === 1;
    text.append(element("small", [rows[0].group, rows[0].place].filter(Boolean).join(", ")));
    label.append(box, text);
    const strip = element("div", "", "strip");
    for (const row of rows) {
      const part = element("i", "", STRIP[row.kind] ?? "gap");
      const start = new Date(row.start), end = new Date(row.end);
      part.style.left = `${(100 * (start - state.span.start)) / length}%`;
      part.style.width = `${(100 * (end - start)) / length}%`;
      part.title = `${start.toLocaleTimeString()} to ${end.toLocaleTimeString()}: ${row.kind}. ${row.why}`;
      strip.append(part);
    }
    line.append(label, strip);
    return line;
  });
  $("cameras").replaceChildren(...(lines.length ? lines : [element("p", "There is no such camera.")]));
  $("actions").hidden = !lines.length;
}

// --- play ---

on("play", "click", () => begin(state.span.start, state.span.end, false));
on("live", "click", () => begin(new Date(Date.now() - 30000), new Date(Date.now() + 3600000), true));

async function begin(start, end, live) {
  const names = [...document.querySelectorAll("#cameras input:checked")].map((box) => box.value);
  if (!names.length) throw new Error("Mark at least one camera.");
  stop();
  const asked = await call("POST", "/v1/requests", {
    incident_id: state.incident.incident_id, cameras: names, start: start.toISOString(), end: end.toISOString(),
  });
  if (!asked.grant) throw new Error(`A second person has to approve request ${asked.request_id} first.`);
  const path = `/v1/grants/${asked.grant.grant_id}/viewings`;
  const viewings = await Promise.all(names.map((camera) => call("POST", path, { camera })));
  state.cameras = viewings.map((viewing) => watch(viewing, live));
  Object.assign(state, { start: +start, end: +end, at: live ? 0 : +start, live, playing: true, last: performance.now() });
  $("videos").replaceChildren(...state.cameras.map((camera) => camera.figure));
  $("view").hidden = false;
  $("note").textContent = "";
  $("pause").textContent = "Pause";
  $("view").scrollIntoView({ behavior: "smooth" });
}

function watch(viewing, live) {
  const figure = element("figure"), video = element("video"), over = element("p", "one moment …");
  const hear = element("button", "Hear");
  video.muted = video.playsInline = hear.hidden = true;
  hear.onclick = () => { hear.textContent = (video.muted = !video.muted) ? "Hear" : "Mute"; };
  figure.append(video, element("figcaption", viewing.camera), hear, over);
  const hls = new Hls({
    enableWorker: false, startPosition: 0, maxBufferLength: 20, liveSyncDurationCount: 2, fragLoadingMaxRetry: 2,
    xhrSetup: (request) => request.setRequestHeader("Authorization", `Bearer ${state.token}`),
  });
  const camera = { name: viewing.camera, figure, video, over, hls, parts: null, gaps: [], gone: new Map(), failed: false };
  hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => learn(camera, details));
  hls.on(Hls.Events.ERROR, (_, data) => fail(camera, data));
  hls.on(Hls.Events.BUFFER_CODECS, (_, tracks) => { hear.hidden = !tracks.audio && !tracks.audiovideo; });
  hls.loadSource(viewing.playlist);
  hls.attachMedia(video);
  return camera;
}

function learn(camera, details) {
  camera.parts = details.fragments.map((part) => ({
    from: part.programDateTime, to: part.programDateTime + part.duration * 1000, start: part.start,
  }));
  camera.gaps = Object.values(details.dateRanges).map((range) => ({
    from: +range.startDate, to: +range.startDate + range.duration * 1000, why: range.attr["X-REASON"],
  }));
  if (state.live && camera.parts.length) {
    const edge = camera.parts.at(-1).to - 4000;
    if (!state.at || edge - state.at > 30000) state.at = edge;
    state.end = Math.max(camera.parts.at(-1).to, state.at);
  }
}

function fail(camera, data) {
  const status = data.response?.code;
  if (!data.fatal && status !== 410 && status !== 403) return;
  let facts = { message: data.error?.message ?? data.details };
  try {
    const text = data.networkDetails.response;
    facts = JSON.parse(typeof text === "string" ? text : new TextDecoder().decode(text));
  } catch { /* not an answer of the gate */ }
  if (status === 410 && data.frag) {  // deleted or lost while it played: said, and gone over
    const from = data.frag.programDateTime, to = from + data.frag.duration * 1000;
    camera.gone.set(from, { from, to, why: facts.message });
    camera.hls.startLoad(data.frag.start + data.frag.duration);
    return;
  }
  if (status === 403 || status === 401) {
    stop();
    $("view").hidden = true;
    complain(`${facts.message}: nothing more is shown.`);
    return;
  }
  camera.failed = true;  // the others go on
  camera.over.textContent = facts.message;
  camera.over.hidden = false;
}

function position(camera, at) {
  for (const gone of camera.gone.values()) if (gone.from <= at && at < gone.to) return null;
  const part = camera.parts?.find((one) => one.from <= at && at < one.to);
  return part ? part.start + (at - part.from) / 1000 : null;
}

function why(camera, at) {
  const known = [...camera.gone.values(), ...camera.gaps].find((one) => one.from <= at && at < one.to);
  return known ? known.why : "no footage";
}

function next(at) {
  const starts = state.cameras.flatMap((camera) =>
    (camera.parts ?? []).filter((part) => part.from > at && position(camera, part.from) !== null).map((part) => part.from));
  return Math.min(...starts);
}

function tick() {
  const now = performance.now(), rate = Number($("rate").value);
  const passed = Math.min(now - state.last, 500);  // a busy machine goes over nothing because it was late
  state.last = now;
  const ready = state.cameras.length && state.cameras.every((camera) => camera.parts);
  if (ready && state.at) {
    const waits = state.cameras.some((camera) =>
      !camera.failed && position(camera, state.at) !== null && camera.video.readyState < 3);
    if (state.playing && !waits) state.at = Math.min(state.at + passed * rate, state.end);
    if (state.playing && state.cameras.every((camera) => position(camera, state.at) === null)) skip();
    for (const camera of state.cameras) keepInStep(camera, rate);
    const moment = new Date(state.at);
    $("time").textContent = moment.toLocaleTimeString([], { hour12: false });
    $("utc").textContent = `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
    $("at").value = (1000 * (state.at - state.start)) / (state.end - state.start);
  }
  setTimeout(tick, 100);
}

function skip() {
  const to = next(state.at);
  if (!Number.isFinite(to)) return;
  const seconds = Math.round((to - state.at) / 1000), reason = why(state.cameras[0], state.at);
  if (seconds > 0) $("note").textContent = `went over ${seconds} s without footage: ${reason}`;
  state.at = to;
}

function keepInStep(camera, rate) {
  if (camera.failed) return;
  const at = position(camera, state.at), video = camera.video;
  camera.over.hidden = at !== null && video.readyState > 1;
  if (at === null) {
    camera.over.textContent = why(camera, state.at);
    video.pause();
    return;
  }
  video.playbackRate = rate;
  if (Math.abs(video.currentTime - at) > 0.5 && !video.seeking) video.currentTime = at;
  if (state.playing && video.paused && !video.ended) video.play().catch(() => {});  // from its end it would begin anew
  if (!state.playing && !video.paused) video.pause();
}

function stop() {
  for (const camera of state.cameras) camera.hls.destroy();
  state.cameras = [];
  state.playing = false;
}

on("pause", "click", () => {
  state.playing = !state.playing;
  $("pause").textContent = state.playing ? "Pause" : "Go on";
});
for (const [id, step] of [["back", -10000], ["on", 10000]]) {
  on(id, "click", () => { state.at = Math.min(Math.max(state.at + step, state.start), state.end); });
}
on("at", "input", () => { state.at = state.start + ($("at").value / 1000) * (state.end - state.start); });
tick();
