// An overlay in the frame of the local file (templates/local_file.html): it reports that it runs, and applies the Custom
// CSS that OBS writes into that file's page.
//
// In a frame of a file Chromium (156) never returns from `new BroadcastChannel()`, so there such an overlay has none: it
// reads a stream of its own (link.js).

const REPORT_MS = 2_000;
const LOCAL = ["null", "file://", "http://absolute"]; // of a local file, by Chromium's version; the last is older OBS

/** Whether a local file shows this page. */
export const inLocalFile = parent !== window && LOCAL.includes(location.ancestorOrigins?.[0]);

const style = document.createElement("style");

function takeStyle({ source, data }) {
  if (source !== parent || typeof data?.css !== "string") return;
  style.textContent = data.css;
  document.head.append(style);
}

const report = () => parent.postMessage({ ataa: "overlay" }, "*");

if (inLocalFile) {
  delete globalThis.BroadcastChannel;
  addEventListener("message", takeStyle);
  setInterval(report, REPORT_MS);
  report();
}
