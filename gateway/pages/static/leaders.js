// The list of leading creators; a row whose rank changes is animated to its new place.

import { isMoney, share, toMinor } from "./money.js";
import { $, calm, element, figures, quote, set } from "./overlay_page.js";

const LEADERS = 5;

export function showLeaders(totals) {
  const panel = $(".leaders");
  if (!panel) return;
  const leaders = (totals.leaders ?? []).filter((l) => isMoney(l.raised)).slice(0, LEADERS);
  panel.hidden = leaders.length === 0;
  const list = panel.querySelector("ol");
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  const top = leaders.length ? toMinor(leaders[0].raised.value) : 0n;
  const now = leaders.map((leader) => leaderRow(rows.get(leader.creator) ?? emptyLeader(leader), leader, top));
  if (now.length === list.children.length && now.every((row, i) => row === list.children[i])) return;
  const before = new Map([...rows].map(([id, row]) => [id, row.offsetTop]));
  list.replaceChildren(...now);
  if (!calm.matches) now.forEach((row) => slide(row, before.get(row.dataset.id)));
}

function emptyLeader(leader) {
  const row = element("li", "leader");
  row.dataset.id = leader.creator;
  row.append(element("span", "rank"), quote("name", ""), element("span", "money"), element("span", "share"));
  return row;
}

function leaderRow(row, leader, top) {
  const [rank, name, money, bar] = row.children;
  set(rank, figures.count(leader.rank));
  set(name, leader.name || leader.slug || "");
  set(money, figures.money(leader.raised));
  bar.style.transform = `scaleX(${share(toMinor(leader.raised.value), top)})`;
  row.classList.toggle("first", leader.rank === 1);
  return row;
}

function slide(row, from) {
  const shift = from === undefined ? 24 : from - row.offsetTop;
  if (shift) row.animate([{ transform: `translateY(${shift}px)` }, { transform: "none" }], { duration: 500, easing: "ease-out" });
}
