// Draws banking's panels from /v1/banking and asks again every few seconds.
"use strict";

const REFRESH_MS = 3000;
const BARS_MAX = 48;
const COLOURS = ["#2563eb", "#16a34a", "#d97706", "#9333ea", "#db2777", "#0891b2", "#64748b"];

const at = (id) => document.getElementById(id);

async function get(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail || answer.statusText);
  return body;
}

function element(name, attributes = {}, ...children) {
  const svg = ["svg", "rect", "line", "text", "title", "g"].includes(name);
  const made = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Amounts are decimals in strings and are shown as they are; only heights of bars are numbers.
function money(text) {
  if (text === null || text === undefined) return "";
  const [, sign, whole, rest = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(String(text)) || [, "", "0"];
  const decimals = rest.replace(/0+$/, "");
  const places = decimals.length ? decimals.padEnd(2, "0") : "";
  return sign + whole.replace(/\B(?=(\d{3})+$)/g, " ") + (places ? "." + places : "");
}

function when(text, per) {
  const time = new Date(text);
  if (per === "day") return time.toLocaleDateString();
  return time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function table(place, head, rows, numbers = []) {
  if (!rows.length) return empty(place);
  const cell = (name) => (text, index) =>
    element(name, numbers.includes(index) ? { class: "number" } : {}, String(text ?? ""));
  const body = rows.map((row) => element("tr", {}, ...row.map(cell("td"))));
  place.replaceChildren(
    element("table", {}, element("thead", {}, element("tr", {}, ...head.map(cell("th")))),
      element("tbody", {}, ...body)));
}

function empty(place) {
  place.replaceChildren(element("p", { class: "empty" }, "nothing yet"));
}

// rows: [{ time, series, value, label }]; one stacked bar a time.
function bars(place, rows, per) {
  if (!rows.length) return empty(place);
  const times = [...new Set(rows.map((row) => row.time))].sort().slice(-BARS_MAX);
  const series = [...new Set(rows.map((row) => row.series))].sort();
  const total = (time) =>
    rows.filter((row) => row.time === time).reduce((sum, row) => sum + Math.max(row.value, 0), 0);
  const highest = Math.max(...times.map(total)) || 1;
  const [width, height, foot] = [place.clientWidth || 900, 200, 18];
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}` });
  const step = width / Math.max(times.length, 12);
  svg.append(element("line", { x1: 0, x2: width, y1: height - foot, y2: height - foot }));
  const top = element("text", { x: width, y: 10, "text-anchor": "end" });
  top.append(`highest: ${money(highest.toFixed(2))}`);
  svg.append(top);
  times.forEach((time, index) => {
    let level = height - foot;
    for (const row of rows.filter((row) => row.time === time && row.value > 0)) {
      const tall = (row.value / highest) * (height - foot - 14);
      level -= tall;
      const bar = element("rect", {
        x: index * step + step * 0.12, y: level, width: step * 0.76, height: tall,
        fill: COLOURS[series.indexOf(row.series) % COLOURS.length],
      });
      bar.append(element("title", {}, `${new Date(time).toLocaleString()} ${row.series}: ${row.label}`));
      svg.append(bar);
    }
    if (index % Math.ceil(times.length / 8) === 0) {
      svg.append(element("text", { x: index * step + 2, y: height - 4 }, when(time, per)));
    }
  });
  const legend = series.map((name, index) => {
    const spot = element("i", {});
    // A style attribute would need an exception in the content security policy.
    spot.style.background = COLOURS[index % COLOURS.length];
    return element("span", {}, spot, name);
  });
  place.replaceChildren(svg, element("div", { class: "legend" }, ...legend));
}

function currencies(rows) {
  const select = at("currency");
  const found = [...new Set(rows.map((row) => row.currency))].sort();
  const known = [...select.options].map((option) => option.value);
  if (found.join() === known.join()) return;
  const chosen = select.value;
  select.replaceChildren(...found.map((name) => element("option", {}, name)));
  select.value = found.includes(chosen) ? chosen : found.includes("USD") ? "USD" : found[0] || "";
}

async function draw() {
  const per = at("per").value;
  const panel = (name) => get(`/v1/banking/panels/${name}`);
  const [volume, flows, fees, balances, movers, accounts] = await Promise.all([
    panel(`volume?per=${per}`), panel(`deposits-withdrawals?per=${per}`), panel(`fees?per=${per}`),
    panel("balance-by-type"), panel("largest-movers?size=10"),
    get("/v1/banking/accounts?size=15"),
  ]);
  currencies(balances.data);
  const currency = at("currency").value;
  const own = (rows) => rows.filter((row) => row.currency === currency);
  const bar = (series, amount) => (row) => ({
    time: row[per], series: series(row), value: Number(amount(row)),
    label: `${money(amount(row))} ${row.currency}`,
  });
  bars(at("volume"), own(volume.data).map(bar((row) => row.event_type, (row) => row.amount)), per);
  bars(at("flows"), own(flows.data).flatMap((row) => [
    bar(() => "deposits", () => row.deposits)(row),
    bar(() => "withdrawals", () => row.withdrawals)(row),
  ]), per);
  bars(at("fees"), own(fees.data).map(bar(() => "fees", (row) => row.fees)), per);
  table(at("balances"), ["type", "currency", "accounts", "balance"],
    balances.data.map((row) => [row.account_type, row.currency, row.accounts, money(row.balance)]),
    [2, 3]);
  table(at("movers"), ["account", "owner", "currency", "events", "moved"],
    movers.data.map((row) =>
      [row.account_id, row.owner, row.currency, row.events, money(row.moved)]), [3, 4]);
  at("count").textContent = `${accounts.total_count} in all`;
  table(at("accounts"),
    ["account", "owner", "type", "status", "balance", "under way", "fees", "opened"],
    accounts.data.map((row) => [row.account_id, row.user_id, row.account_type, row.status,
      `${money(row.current_balance)} ${row.currency}`, money(row.pending_out),
      money(row.total_fees), new Date(row.created_at).toLocaleString()]), [4, 5, 6]);
}

async function refresh() {
  const state = at("state");
  try {
    await draw();
    state.className = "";
    state.textContent = `as of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    state.className = "bad";
    state.textContent = error.message;
  }
}

let timer;
async function loop() {
  clearTimeout(timer);
  await refresh();
  timer = setTimeout(loop, REFRESH_MS);
}

at("per").addEventListener("change", loop);
at("currency").addEventListener("change", loop);
loop();
