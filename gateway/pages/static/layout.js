// The layout (wide or vertical) and the size of an overlay, as attributes of the root for the style sheet.
// Without a layout in the address it follows the shape of the source.

import { page } from "./overlay_page.js";

const root = document.documentElement;
const upright = matchMedia("(max-aspect-ratio: 4/5), (max-width: 600px)");

function arrange() {
  root.dataset.layout = page.layout || (upright.matches ? "vertical" : "wide");
}

root.dataset.size = page.size;
upright.addEventListener("change", arrange);
arrange();
