// The hub as a SharedWorker: one for all pages of the origin; browsers do not throttle it as they do hidden pages.

import { Candidate, Hub } from "./hub.js";

if (navigator.locks) new Candidate().stand();
else new Hub().start(); // no Web Locks (plain http on a network address): the worker is the only candidate
