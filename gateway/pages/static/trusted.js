// Strings that may reach the browser's HTML and script interfaces of an overlay (Trusted Types).
//
// The page's content policy refuses all of them but two: the address of the hub's worker, and text without any
// tag, which is what older OBS writes into a style element by `innerHTML` for its Custom CSS. (Newer
// ones append a text node. Source: obs-browser, browser-client.cpp, OnLoadEnd.)

const WORKER = new URL("./hub_worker.js", import.meta.url).href;
const TAG = /<[a-z/!?]/i; // what begins a tag: https://html.spec.whatwg.org/multipage/parsing.html#tag-open-state

globalThis.trustedTypes?.createPolicy("default", {
  createHTML: (text) => (TAG.test(text) ? null : text),
  createScriptURL: (address) => (address === WORKER ? address : null),
});
