// A clock for an overlay that shows twelve days in minutes. Time passes only by `tick` events of the live stream, whose
// data is milliseconds, and slowly while no stream is open. All of the page's timers, animation frames and animations
// follow it. Messages between hub and page are delivered at once, so that they keep their place between two ticks.

(() => {
  const FRAME_MS = 200; // between two animation frames
  const ALONE_MS = 100; // passes in each ALONE_REAL_MS while no stream is open
  const ALONE_REAL_MS = 5;
  const TURNS = 8; // of promises, that a timer's work may take before the next timer

  const realInterval = setInterval;
  const RealDate = Date;
  const RealSource = EventSource;
  const began = RealDate.now();
  const timers = new Map();
  let now = 0;
  let last = 0;

  function add(run, ms, every) {
    last += 1;
    timers.set(last, { id: last, run, at: now + Math.max(1, Number(ms) || 0), every });
    return last;
  }

  function due(end) {
    let first = null;
    for (const timer of timers.values()) if (timer.at <= end && (!first || timer.at < first.at)) first = timer;
    return first;
  }

  async function advance(ms) {
    const end = now + ms;
    for (let timer = due(end); timer; timer = due(end)) {
      now = Math.max(now, timer.at);
      if (timer.every) timer.at = now + timer.every;
      else timers.delete(timer.id);
      try {
        timer.run();
      } catch (error) {
        reportError(error);
      }
      for (let turn = 0; turn < TURNS; turn++) await null;
    }
    now = end;
  }

  globalThis.setTimeout = (run, ms) => add(run, ms, 0);
  globalThis.setInterval = (run, ms) => add(run, ms, Math.max(1, ms));
  globalThis.clearTimeout = globalThis.clearInterval = (id) => void timers.delete(id);
  globalThis.requestAnimationFrame = (run) => add(() => run(now), FRAME_MS - (now % FRAME_MS), 0);
  performance.now = () => now;
  globalThis.Date = class extends RealDate {
    constructor(...parts) {
      if (parts.length) super(...parts);
      else super(began + now);
    }
    static now() {
      return began + now;
    }
  };

  // The parts of Web Animations that the overlay uses.
  Object.defineProperty(document, "timeline", { get: () => ({ currentTime: now }) });
  Element.prototype.animate = (_, { duration }) => {
    let timer = 0;
    const animation = { onfinish: null, cancel: () => timers.delete(timer) };
    const finishAt = (at) => {
      timers.delete(timer);
      timer = add(() => animation.onfinish?.(), at + duration - now, 0);
    };
    Object.defineProperty(animation, "startTime", { set: finishAt });
    finishAt(now);
    return animation;
  };

  const channels = new Map();
  globalThis.BroadcastChannel = class {
    onmessage = null;
    constructor(name) {
      this.name = name;
      channels.set(name, [...(channels.get(name) ?? []), this]);
    }
    postMessage(data) {
      for (const other of channels.get(this.name) ?? []) {
        if (other !== this) queueMicrotask(() => other.onmessage?.({ data: structuredClone(data) }));
      }
    }
    close() {
      channels.set(this.name, channels.get(this.name).filter((one) => one !== this));
    }
  };

  let stream = null;
  globalThis.EventSource = class extends RealSource {
    constructor(address) {
      super(address);
      stream = this;
      this.addEventListener("tick", ({ data }) => advance(Number(data)));
    }
  };
  delete globalThis.SharedWorker; // so that the memory measured contains the hub and the stream's reader
  realInterval(() => stream?.readyState !== RealSource.OPEN && advance(ALONE_MS), ALONE_REAL_MS);
})();
