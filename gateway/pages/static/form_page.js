// Shared by the scripts of the form and its thanks page: the page's data, its texts and formats, what the tab stores
// of the donation, and the page around the form.

import { pageAround } from "./framed.js";
import { Figures } from "./money.js";
import { Memory } from "./pledge.js";

export const page = JSON.parse(document.getElementById("page").textContent);
export const { texts } = page;
export const figures = new Figures(page.lang, page.digits);
export const memory = new Memory(page.memory);
export const around = pageAround(page);
export const $ = (id) => document.getElementById(id);

/** What currency.js adds to the form. It is empty where the drive takes one currency. */
export const choice = {};

/** An amount in the form's currency, as it is shown. */
export const inWords = (value) => figures.money({ currency: page.currency, value });
