// Commands for the alerts of a drive: skip, replay, pause, resume. They come from the keyboard of an overlay (in OBS:
// Interact) and from setup pages of the same browser, and reach every overlay of the drive in that browser. Those of
// moderators are in the totals, and reach every overlay of the drive.

export const KEYS = { s: "skip", r: "replay", p: "toggle" };

const FRESH_MS = 10_000; // an older skip or replay of a moderator is not for what is on the screen now
const KINDS = ["skip", "replay"];

export class AlertControls {
  #channel = null;
  #key;
  #act;
  #memory = null; // the state where there is no storage
  #acted = null; // { drive, skip, replay }: the versions of moderators' controls that this page needs not act on
  #pauseSeen = null; // { drive, version }: the newest pause or resume of moderators that this page has obeyed

  /** `act(command, donation)` receives skip, replay (of that donation, if any), pause and resume, also those of this page. */
  constructor(drive, act) {
    this.#key = `ataa-alerts-paused:${drive}`;
    this.#act = act;
    if (typeof BroadcastChannel !== "function") return;
    this.#channel = new BroadcastChannel(`ataa-alert-controls/${drive}`);
    this.#channel.onmessage = ({ data }) => this.#take(data);
  }

  /** Whether alerts are paused; kept over a reload. The newest of moderators' and this browser's commands counts. */
  get paused() {
    return this.#kept().paused;
  }

  send(command) {
    const exact = command === "toggle" ? (this.paused ? "resume" : "pause") : command;
    if (exact === "pause" || exact === "resume") this.#keep({ ...this.#kept(), paused: exact === "pause" });
    this.#channel?.postMessage(exact);
    this.#act(exact);
  }

  /** What moderators commanded, in the newest totals: a version is acted on once, none from before this page was loaded. */
  follow({ drive, alerts, as_of }) {
    if (!Number.isInteger(alerts?.version)) return;
    this.#takePause(drive, alerts);
    if (this.#acted?.drive !== drive) {
      this.#acted = { drive, skip: alerts.version, replay: alerts.version };
      return;
    }
    const due = KINDS.filter((kind) => alerts[kind]?.version > this.#acted[kind]);
    due.sort((a, b) => alerts[a].version - alerts[b].version);
    for (const kind of due) {
      this.#acted[kind] = alerts[kind].version;
      if (Date.parse(as_of) - Date.parse(alerts[kind].at) <= FRESH_MS) this.#act(kind, alerts[kind].donation);
    }
  }

  /** Another page of this browser may have kept this version already, and have been commanded since: its state counts. */
  #takePause(drive, { version, paused }) {
    const seen = this.#pauseSeen;
    if (seen?.drive === drive && seen.version >= version) return;
    this.#pauseSeen = { drive, version };
    const kept = this.#kept();
    if (kept.drive !== drive && version === 0) return; // no moderator has commanded anything yet
    const isNewest = kept.drive !== drive || kept.version < version;
    if (isNewest) this.#keep({ drive, version, paused });
    this.#act((isNewest ? paused : kept.paused) ? "pause" : "resume");
  }

  #take(command) {
    if (["skip", "replay", "pause", "resume"].includes(command)) this.#act(command);
  }

  #kept() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.#key));
      if (typeof kept?.paused === "boolean") return kept;
    } catch {
      // an iframe on another site may have no storage
    }
    return this.#memory ?? { drive: null, version: 0, paused: false };
  }

  #keep(state) {
    this.#memory = state;
    try {
      localStorage.setItem(this.#key, JSON.stringify(state));
    } catch {
      // Without storage a reload resumes what this browser paused; what moderators paused is in the totals.
    }
  }
}
