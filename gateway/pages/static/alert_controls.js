// Commands for the alerts of a drive: skip, replay, pause, resume. They come from the keyboard of an overlay (in OBS:
// Interact) and from setup pages of the same browser, and reach every overlay of the drive in that browser.

export const KEYS = { s: "skip", r: "replay", p: "toggle" };

export class AlertControls {
  #channel = null;
  #key;
  #act;

  /** `act(command)` receives skip, replay, pause and resume, also those that this page sent. */
  constructor(drive, act) {
    this.#key = `ataa-paused:${drive}`;
    this.#act = act;
    if (typeof BroadcastChannel !== "function") return;
    this.#channel = new BroadcastChannel(`ataa-alert-controls/${drive}`);
    this.#channel.onmessage = ({ data }) => this.#take(data);
  }

  /** Whether alerts are paused; kept over a reload. */
  get paused() {
    try {
      return localStorage.getItem(this.#key) !== null;
    } catch {
      return false; // an iframe on another site may have no storage
    }
  }

  send(command) {
    const exact = command === "toggle" ? (this.paused ? "resume" : "pause") : command;
    this.#store(exact);
    this.#channel?.postMessage(exact);
    this.#act(exact);
  }

  #take(command) {
    if (["skip", "replay", "pause", "resume"].includes(command)) this.#act(command);
  }

  #store(command) {
    try {
      if (command === "pause") localStorage.setItem(this.#key, "1");
      if (command === "resume") localStorage.removeItem(this.#key);
    } catch {
      // Without storage a reload resumes.
    }
  }
}
