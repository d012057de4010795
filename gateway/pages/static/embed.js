/*
 * Puts the donate form on a page: <script src="…/embed.js" data-drive="…" data-key="pk_…" async></script>
 *
 * Written in ES5 for old in-app browsers. It sets no global, and it may be added more than once. The page and the
 * form exchange messages by exact origins: the form tells its height and what happened, the page its return address.
 * Payment opens in the page's own tab, because in-app browsers have no popups and Stripe's page cannot be framed.
 */
(function () {
  "use strict";

  var PATIENCE_MS = 12000;
  var MARK = "data-ataa-form";
  var SOURCE = /^(platform|campaign|utm_source|utm_campaign|hashtag|story|ref|referrer)=./;
  var TEXTS = {
    en: { title: "Donation form", open: "Open the donation form" },
    ar: { title: "نموذج التبرع", open: "افتح نموذج التبرع" },
  };

  function addEach() {
    var scripts = document.querySelectorAll("script[data-drive][data-key]");
    for (var i = 0; i < scripts.length; i += 1) {
      if (/\/embed\.js(\?|$)/.test(scripts[i].src) && !scripts[i].hasAttribute(MARK)) add(scripts[i]);
    }
  }

  function add(script) {
    script.setAttribute(MARK, "");
    var form = describe(script);
    if (!document.body) return void document.addEventListener("DOMContentLoaded", function () { place(form); });
    place(form);
  }

  /** What the script's attributes ask for, and the source that the page's address names. */
  function describe(script) {
    var link = document.createElement("a");
    link.href = script.src;
    var given = { drive: script.getAttribute("data-drive"), creator: script.getAttribute("data-creator") || "" };
    var lang = (script.getAttribute("data-lang") || document.documentElement.lang || "").slice(0, 2).toLowerCase();
    var name = given.drive + (given.creator ? "." + given.creator : "");
    var query = ["key=" + encodeURIComponent(script.getAttribute("data-key")), "origin=" + encodeURIComponent(location.origin)];
    if (given.creator) query.push("creator=" + encodeURIComponent(given.creator));
    if (script.getAttribute("data-currency")) query.push("currency=" + encodeURIComponent(script.getAttribute("data-currency")));
    if (TEXTS[lang]) query.push("lang=" + lang);
    query = query.concat(location.search.slice(1).split("&").filter(function (one) { return SOURCE.test(one); }));
    return {
      script: script,
      base: link.protocol + "//" + link.host,
      path: "/" + encodeURIComponent(given.drive),
      query: query.join("&"),
      id: encodeURIComponent(name),
      texts: TEXTS[lang] || TEXTS.en,
      told: {},
    };
  }

  function place(form) {
    if (document.querySelector("iframe[" + MARK + '="' + form.id + '"]')) return; // the same tag a second time
    var frame = document.createElement("iframe");
    form.frame = frame;
    frame.setAttribute(MARK, form.id);
    frame.title = form.texts.title;
    frame.allow = "payment; clipboard-write";
    frame.src = form.base + "/embed" + form.path + (takeReturn(form) ? "/thanks" : "") + "?" + form.query;
    frame.style.cssText = "display:block;width:100%;height:640px;border:0;color-scheme:light";
    window.addEventListener("message", function (event) {
      if (event.source === frame.contentWindow && event.origin === form.base && event.data) receive(form, event.data);
    });
    if (document.body.contains(form.script)) form.script.parentNode.insertBefore(frame, form.script.nextSibling);
    else document.body.appendChild(frame);
    setTimeout(function () { if (!form.ready) offerLink(form); }, PATIENCE_MS);
  }

  function receive(form, message) {
    if (message.ataa === "height") resize(form, message.height);
    if (message.ataa === "checkout" && /^https?:\/\//i.test(message.url)) location.assign(message.url);
    if (message.ataa === "ready") {
      form.ready = true;
      if (form.link) form.link.parentNode.removeChild(form.link);
      form.link = null;
      form.frame.contentWindow.postMessage({ ataa: "page", return_url: returnUrl(form) }, form.base);
    }
    if (/^(ready|pledged|paid|closed)$/.test(message.ataa)) announce(form, message.ataa, message.pledge || null);
  }

  function resize(form, height) {
    if (typeof height === "number" && height > 0) form.frame.style.height = Math.min(Math.ceil(height), 20000) + "px";
  }

  /** Dispatches an event on the script element, once for each pledge. */
  function announce(form, name, pledge) {
    if (form.told[name] === String(pledge)) return;
    form.told[name] = String(pledge);
    var place = document.documentElement.contains(form.script) ? form.script : form.frame;
    place.dispatchEvent(new CustomEvent("ataa:" + name, { bubbles: true, detail: { pledge: pledge } }));
  }

  // --- the way back from payment: this page's address, marked with the form that was paid ---

  function withoutMark() {
    return location.search.replace(/([?&])ataa=[^&]*(&|$)/, function (all, before, after) { return after && before; });
  }

  function returnUrl(form) {
    var search = withoutMark();
    return location.origin + location.pathname + search + (search ? "&" : "?") + "ataa=" + form.id + location.hash;
  }

  /** Whether the donor has just paid with this form; takes the mark out of the address. */
  function takeReturn(form) {
    var mark = /[?&]ataa=([^&]*)/.exec(location.search);
    if (!mark || mark[1] !== form.id) return false;
    if (history.replaceState) history.replaceState(history.state, "", location.pathname + withoutMark() + location.hash);
    return true;
  }

  /** The form did not load: blocked, or refused for this key and origin. The donor gets a link to it instead. */
  function offerLink(form) {
    form.link = document.createElement("p");
    var link = document.createElement("a");
    link.href = form.base + "/donate" + form.path + "?" + form.query.replace(/^key=[^&]*&origin=[^&]*&?/, "");
    link.textContent = form.texts.open;
    form.link.appendChild(link);
    form.frame.parentNode.insertBefore(form.link, form.frame);
    form.frame.style.height = "0";
    if (window.console) {
      console.warn("Ataa: the form did not load. Is the key valid, and is " + location.origin + " on its list of origins?");
    }
  }

  addEach();
})();
