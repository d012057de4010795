// Strings that may reach the browser's HTML and script interfaces of an overlay (Trusted Types).
//
// Only two are allowed: the address of the hub's worker, and text without any tag, which older versions of OBS
// write into a style element through `innerHTML` for Custom CSS. (Newer versions append a text node. Source:
// obs-browser, browser-client.cpp, OnLoadEnd.)

const WORKER = new URL("./hub_worker.js", import.meta.url).href;
const TAG = /<[a-z/!?]/i; // the start of a tag: https://html.spec.whatwg.org/multipage/parsing.html#tag-open-state

globalThis.trustedTypes?.createPolicy("default", {
  createHTML: (text) => (TAG.test(text) ? null : text),
  createScriptURL: (address) => (address === WORKER ? address : null),
});
