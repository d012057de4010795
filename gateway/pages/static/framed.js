// The form in a frame of a partner's page: tells that page what happens, and asks it to open the payment.

/** The page around the form, or null where the form is not in a frame. */
export function pageAround({ frame }) {
  return frame && parent !== window ? new PageAround(frame.origin) : null;
}

class PageAround {
  constructor(origin) {
    this.origin = origin;
    this.returnUrl = null;
    addEventListener("message", (event) => this.#receive(event));
    new ResizeObserver(() => this.#tellHeight()).observe(document.documentElement);
    this.tell("ready");
  }

  /** Sends a message, which browsers deliver to a page of this exact origin only. */
  tell(name, fields = {}) {
    parent.postMessage({ ataa: name, ...fields }, this.origin);
  }

  /** Where the donor returns to after paying: an address of the page around. */
  #receive({ source, origin, data }) {
    if (source !== parent || origin !== this.origin || data?.ataa !== "page") return;
    if (String(data.return_url).startsWith(`${this.origin}/`)) this.returnUrl = data.return_url;
  }

  #tellHeight() {
    this.tell("height", { height: document.documentElement.getBoundingClientRect().height });
  }
}
