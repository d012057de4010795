// The hub as a SharedWorker: one for all pages of the origin, never hidden, never throttled.

import { Candidate, Hub } from "./hub.js";

if (navigator.locks) new Candidate().stand();
else new Hub().start(); // plain http on a network address: there the worker alone is the hub
