// The setup page of an overlay: it builds the address, previews it, and sends tests to the preview only.

import { AlertControls } from "./alert_controls.js";
import { $, page, set, texts } from "./overlay_page.js";

const SOURCES = { wide: [1920, 1080], vertical: [1080, 1920] };
const DEFAULTS = { digits: "latn", theme: "dark", layout: "wide", size: "m" };
const SETTLE_MS = 250; // several choices in a row load the preview once

const form = $("#choices");
const frame = $("iframe");
const screen = $(".screen");
let settling = 0;

const path = `/overlay/${encodeURIComponent(page.drive)}`;

/** The overlay's query; choices that are the default are left out, except parts and language. */
function chosenQuery() {
  const chosen = new FormData(form);
  const query = new URLSearchParams({ parts: chosen.getAll("parts").join(","), lang: chosen.get("lang") });
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    if (chosen.get(name) !== usual) query.set(name, chosen.get(name));
  }
  return String(query).replaceAll("%2C", ",");
}

const address = () => `${location.origin}${path}?${chosenQuery()}`;

function showAddress() {
  const [width, height] = SOURCES[form.elements.layout.value];
  $("#address").value = address();
  $("#file").href = `${path}/file?${chosenQuery()}`;
  set($("#source-size"), texts.source_size.replace("{width}", width).replace("{height}", height));
  set($("#copied"), "");
  fit();
}

function loadPreview() {
  const layout = form.elements.layout.value;
  // Another address than the source's: the two keep separate positions in the log.
  frame.src = `${address()}&layout=${layout}&preview=1`;
}

/** Scales the preview, which has the source's size, to the space it has. */
function fit() {
  const [width, height] = SOURCES[form.elements.layout.value];
  screen.dataset.layout = form.elements.layout.value;
  const scale = screen.clientWidth / width;
  frame.style.width = `${width}px`;
  frame.style.height = `${height}px`;
  frame.style.transform = `scale(${scale})`;
  screen.style.height = `${height * scale}px`;
}

async function copy() {
  const field = $("#address");
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    set($("#copied"), texts.copied);
  } catch {
    set($("#copied"), document.execCommand("copy") ? texts.copied : texts.copy_failed); // not a secure context
  }
}

const tests = {
  small: () => ({ alert: alert(page.small) }),
  large: () => ({ alert: alert(page.large) }),
  milestone: () => ({ milestone: { title: texts.test_title, amount: money(page.large) } }),
};

const money = (value) => ({ currency: page.currency, value });

function alert(value) {
  return { name: texts.test_name, message: texts.test_message, amount: money(value), creator: null };
}

const controls = new AlertControls(page.drive, showPaused);

function showPaused() {
  set($("#pause"), controls.paused ? texts.resume : texts.pause);
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", () => {
  showAddress();
  clearTimeout(settling);
  settling = setTimeout(loadPreview, SETTLE_MS);
});
$("#copy").addEventListener("click", copy);
for (const button of document.querySelectorAll("[data-test]")) {
  button.addEventListener("click", () =>
    frame.contentWindow.postMessage(tests[button.dataset.test](), location.origin),
  );
}
for (const button of document.querySelectorAll("[data-command]")) {
  button.addEventListener("click", () => controls.send(button.dataset.command));
}
new ResizeObserver(fit).observe(screen);
addEventListener("storage", showPaused); // a moderator may pause, which the preview stores
showPaused();
showAddress();
loadPreview();
