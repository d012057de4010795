// The total with its bar, and the goal. A goal or milestone is never shown as reached too early: all
// comparisons use exact minor units.

import { decimalsOf, isMoney, localised, share, toMinor, toValue } from "./money.js";
import { $, calm, element, figures, lang, page, set, texts, writeMoney } from "./overlay_page.js";

const ROLL_MS = 900;

/** An amount that is animated to its new value and ends on exactly that value. */
class Roll {
  constructor(place) {
    this.place = place;
    this.shown = null;
    this.target = null;
  }

  aim(money) {
    if (this.target && money.value === this.target.value && money.currency === this.target.currency) return;
    const first = this.target === null || money.currency !== this.target.currency;
    this.target = money;
    this.from = first || calm.matches ? toMinor(money.value) : this.shown;
    this.began = performance.now();
  }

  /** Draws one frame; returns true until the animation has ended. */
  draw(now) {
    if (!this.target || this.shown === toMinor(this.target.value)) return false;
    const to = toMinor(this.target.value);
    const t = Math.max(0, Math.min(1, (now - this.began) / ROLL_MS));
    const eased = BigInt(Math.round((1 - (1 - t) ** 3) * 1e6));
    this.shown = t === 1 ? to : this.from + ((to - this.from) * eased) / 1_000_000n;
    const value = toValue(this.shown, decimalsOf(this.target.value));
    writeMoney(this.place, { currency: this.target.currency, value });
    if (this.shown === to) this.place.dataset.value = value;
    return this.shown !== to;
  }
}

const roll = $(".raised") && new Roll($(".raised"));

/** Draws one frame of the animated total; returns true until the animation has ended. */
export const drawTotal = (now) => roll?.draw(now) ?? false;

export function showBar(totals) {
  set($(".title"), localised(totals.title, lang) || page.drive);
  roll?.aim(totals.raised);
  if (!$(".bar")) return;
  const goal = isMoney(totals.goal) && toMinor(totals.goal.value) > 0n ? totals.goal : null;
  const raised = toMinor(totals.raised.value);
  $(".bar").classList.toggle("no-goal", !goal);
  set($(".percent"), goal ? figures.percentOf(raised, toMinor(goal.value)) : "");
  set($(".gifts"), figures.format(texts.gifts, {}, totals.donations ?? 0));
  const perMinute = totals.per_minute?.donations ?? 0;
  set($(".per-minute"), perMinute > 0 ? figures.format(texts.a_minute, {}, perMinute) : "");
  set($(".of-goal"), goal ? figures.format(texts.of_goal, { goal: figures.money(goal) }) : "");
  if (goal) drawTrack(totals, raised, toMinor(goal.value));
}

/** Beyond the goal the full track is the amount raised, and the goal becomes a mark on it. */
function drawTrack(totals, raised, goal) {
  const scale = raised > goal ? raised : goal;
  $(".bar").classList.toggle("reached", raised >= goal);
  const missing = (1 - share(raised, scale)) * 100;
  $(".fill").style.transform = `translateX(${lang === "ar" ? missing : -missing}%)`;
  const marks = (totals.milestones ?? []).filter((m) => isMoney(m.amount)).map((m) => toMinor(m.amount.value));
  if (raised > goal) marks.push(goal);
  const places = [...new Set(marks.filter((m) => m > 0n && m < scale))].slice(0, 24);
  const ticks = $(".ticks");
  while (ticks.children.length > places.length) ticks.lastChild.remove();
  places.forEach((mark, i) => {
    const tick = ticks.children[i] ?? ticks.appendChild(element("i", "tick"));
    tick.style.insetInlineStart = `${share(mark, scale) * 100}%`;
    tick.classList.toggle("passed", mark <= raised);
  });
}

export function showGoal(totals) {
  if (!$(".goal") || !isMoney(totals.goal)) return;
  $(".goal").hidden = false;
  writeMoney($(".goal-money"), totals.goal, true);
  const left = toMinor(totals.goal.value) - toMinor(totals.raised.value);
  const money = { currency: totals.goal.currency, value: toValue(left, decimalsOf(totals.goal.value)) };
  set($(".to-go"), left > 0n ? figures.format(texts.to_go, { money: figures.money(money) }) : texts.goal_reached);
  $(".goal").classList.toggle("reached", left <= 0n);
}
