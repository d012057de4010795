// Finds a creator by name where a drive has more of them than the form lists.

import { $, figures, page, texts } from "./form_page.js";
import { sleep } from "./pledge.js";

const FIND_AFTER_MS = 250;
const OPTIONS_SEEN = 7;
let listed = [];
let searches = 0;

/** Searches for the typed text after a pause in typing; a response to an earlier search is discarded. */
async function findCreator() {
  const text = $("find").value.trim();
  const mine = (searches += 1);
  if (!text) return offerCreators(listed, "", 1);
  await sleep(FIND_AFTER_MS);
  if (mine !== searches) return undefined;
  const result = await searchCreators(text).catch(() => null);
  if (mine !== searches) return undefined;
  if (!result) return ($("found").textContent = texts.find_failed);
  const found = result.creators.map(({ id, name }) => new Option(name, id));
  const summary = result.more ? texts.found_more : figures.format(texts.found, {}, found.length);
  return offerCreators(found, summary, Math.min(found.length + 2, OPTIONS_SEEN));
}

async function searchCreators(text) {
  const path = `/donate/${encodeURIComponent(page.slug)}/creators?q=${encodeURIComponent(text)}`;
  const reply = await fetch(path, { cache: "no-store" });
  return reply.status === 200 ? reply.json() : null;
}

/** Sets the options: nobody, the creator chosen now, and `found`; `size` of them are visible at a time. */
function offerCreators(found, summary, size) {
  const [nobody, chosen] = [$("creator").options[0], $("creator").selectedOptions[0]];
  const others = found.filter((option) => option.value !== chosen.value);
  for (const option of others) option.dir = "auto";
  $("creator").replaceChildren(...new Set([nobody, chosen, ...others]));
  chosen.selected = true;
  $("creator").size = size;
  $("found").textContent = summary;
}

function noSubmit(event) {
  if (event.key === "Enter") event.preventDefault();
}

/** Starts the search field, if the page has one. */
export function offerSearch() {
  if (!$("find")) return;
  listed = [...$("creator").options].slice(1);
  $("find").addEventListener("input", findCreator);
  $("find").addEventListener("keydown", noSubmit);
}
