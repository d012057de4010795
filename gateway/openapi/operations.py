"""The OpenAPI descriptions of the gateway's own operations, and its additions to those of the services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from backbone.http.caller import NotYourDrive
from backbone.http.fields import REFERENCE, WITHOUT_NUL
from backbone.http.problems import (
    MEDIA_TYPE,
    BodyTooLarge,
    Forbidden,
    Invalid,
    MalformedJson,
    NotFound,
    Overloaded,
    Problem,
    TooManyRequests,
    Unauthorized,
    Unexpected,
    UnsupportedMediaType,
)
from backbone.idempotency import KeyMalformed, KeyMissing, KeyReused, RequestInProgress
from gateway.access.keys import OriginNotAllowed
from gateway.http.asgi import DuplicateHeader
from gateway.openapi.log_operations import LOG_OPERATIONS
from gateway.openapi.models import SCHEMAS, STREAM_EVENTS
from gateway.reach.funnel_counts import PeriodTooLong

Json = dict[str, Any]

TAGS: Final[list[Json]] = [
    {"name": "Drives", "description": "Donation drives: create them, change them, open and close them."},
    {"name": "Creators", "description": "Who raises for a drive."},
    {"name": "Pledges", "description": "A donor's promise, and the checkout that pays it."},
    {"name": "Refunds", "description": "Give money back."},
    {"name": "Money", "description": "Payments, held money, and the ledger of a drive."},
    {"name": "Offline giving", "description": "Money past the processor, hours and goods, by two keys."},
    {"name": "Matching", "description": "Sponsors that add to every gift, up to a cap."},
    {"name": "Disbursements", "description": "What is paid to a drive's beneficiaries."},
    {"name": "Moderation", "description": "Which names and messages of donors are shown."},
    {"name": "Live reads", "description": "What a drive has raised, without a key: totals, stream, log."},
    {
        "name": "Proof",
        "description": "A drive's log as a Merkle tree that anybody can verify.",
    },
    {"name": "Checkouts", "description": "The queue of checkouts to be opened. For admin keys only."},
    {"name": "Webhooks", "description": "Stripe's events."},
    {"name": "Keys", "description": "API keys. For admin keys only."},
]

_TAGGED: Final = (
    ("/offline-gifts", "Offline giving"),
    ("/matching-pools", "Matching"),
    ("/checkpoint", "Proof"),
    ("/tile/", "Proof"),
    ("/proof", "Proof"),
    ("/.well-known/", "Proof"),
    ("/contributions", "Offline giving"),
    ("/disbursements", "Disbursements"),
    ("/refunds", "Refunds"),
    ("/v1/payments", "Money"),
    ("/v1/payouts", "Money"),
    ("/v1/rates", "Money"),
    ("/v1/checkouts", "Checkouts"),
    ("/audit", "Proof"),
    ("/ledger", "Money"),
    ("/trial-balance", "Money"),
    ("/statement", "Money"),
    ("/creators", "Creators"),
    ("/messages", "Moderation"),
    ("/decisions", "Moderation"),
    ("/v1/pledges", "Pledges"),
    ("/pledges", "Pledges"),
    ("/totals", "Live reads"),
    ("/live", "Live reads"),
    ("/leaderboards/", "Live reads"),
    ("/donations", "Live reads"),
    ("/events", "Live reads"),
    ("webhooks", "Webhooks"),
    ("/v1/keys", "Keys"),
    ("", "Drives"),
)


def tag_of(path: str) -> str:
    """The tag of an operation's path."""
    return next(tag for part, tag in _TAGGED if part in path)


def _ref(name: str) -> Json:
    return {"$ref": f"{SCHEMAS}{name}"}


def _json(name: str) -> Json:
    return {"application/json": {"schema": _ref(name)}}


class BadWebhook(Problem):
    """As payments answers it."""

    status, slug, title = 400, "bad-webhook", "The webhook is not Stripe's"


def _header(name: str, description: str, *examples: str) -> Json:
    schema: Json = {"type": "string"} | ({"examples": list(examples)} if examples else {})
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


def _moment(name: str, description: str) -> Json:
    schema: Json = {"type": "string", "format": "date-time"}
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


_DRIVE: Final[Json] = {
    "name": "drive",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{REFERENCE}$", "examples": ["winter"]},
    "description": "The drive's id or slug, in lower case.",
}
_PREFER: Final = "`wait=10` holds the reply, up to 30 s; anything else is ignored (RFC 7240)."

IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {
        "type": "string",
        "pattern": "^[!-~]{1,255}$",
        "examples": ["9b2f6c1e-3d1f-4a53-8f0e-5f7c0e5f2a11"],
    },
    "description": (
        "1 to 255 visible ASCII characters, new for each intention. The same key with the same body answers "
        "as the first time, for at least 24 hours."
    ),
}

_ETAG: Final[Json] = {
    "description": "Send it as `If-None-Match`.",
    "schema": {"type": "string"},
    "required": True,
}
_RETRY_AFTER: Final[Json] = {"description": "Seconds.", "schema": {"type": "string"}, "required": True}
_RATE_LIMITS: Final[Json] = {
    name: {"description": description, "schema": {"type": "string"}, "required": True}
    for name, description in (
        ("RateLimit", "What is left, and the seconds until more is."),
        ("RateLimit-Policy", "How much is allowed in which time."),
    )
}
REPLAYED: Final[Json] = {
    "Idempotency-Replayed": {
        "description": "`true` where the answer was given before.",
        "schema": {"type": "string", "const": "true"},
    }
}

OPERATIONS: Final[dict[str, dict[str, Json]]] = {
    "/v1/drives/{drive}/pledges": {
        "post": {
            "parameters": [_DRIVE, _header("Prefer", _PREFER, "wait=5")],
            "description": (
                "Create a pledge to a live drive.\n\nA new pledge has no checkout yet: `Prefer: wait=5` "
                "holds the reply until it is there, or read the pledge again. A publishable key may do this "
                "too, from the origins on its list."
            ),
            "responses": {"201": {"description": "The pledge.", "content": _json("Pledge")}},
        }
    },
    "/v1/pledges": {
        "get": {"responses": {"200": {"description": "The pledges.", "content": _json("PledgeList")}}}
    },
    "/v1/pledges/{pledge}": {
        "get": {
            "operationId": "read_pledge",
            "description": (
                "Read a pledge.\n\nBy its token or its partner's key. `Prefer: wait=10` holds the reply "
                "until `status` or `checkout` changes. A wrong token is 404, and so is a pledge of another "
                "partner."
            ),
            "parameters": [
                {
                    "name": "pledge",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string"},
                    "description": "The pledge's id.",
                },
                {
                    "name": "token",
                    "in": "query",
                    "required": False,
                    "schema": {"type": "string"},
                    "description": "The pledge's `token`: reads it without a key.",
                },
                _header("Prefer", _PREFER, "wait=10"),
            ],
            "responses": {"200": {"description": "The pledge.", "content": _json("Pledge")}},
            "x-problems": [NotFound],
            "security": [{}, {"key": ["pledges"]}],
        }
    },
    "/v1/drives/{drive}/totals": {
        "get": {
            "operationId": "read_totals",
            "description": "Read what a drive has raised.\n\n`state` and `lag_ms` state how current it is.",
            "parameters": [_DRIVE, _header("If-None-Match", "The ETag you have: 304 while nothing changed.")],
            "responses": {
                "200": {"description": "The totals.", "content": _json("Totals"), "headers": {"ETag": _ETAG}},
                "304": {"description": "As you have them."},
            },
            "x-problems": [NotFound],
            "security": [],
        }
    },
    "/v1/totals": {
        "get": {
            "operationId": "read_several_totals",
            "description": "Read what several drives have raised.\n\nWithout `leaders` and `recent`.",
            "parameters": [
                {
                    "name": "drives",
                    "in": "query",
                    "required": True,
                    "style": "form",
                    "explode": False,
                    "schema": {
                        "type": "array",
                        "items": {"type": "string", "pattern": f"^{REFERENCE}$"},
                        "minItems": 1,
                        "maxItems": 50,
                    },
                    "example": ["winter"],
                    "description": "Up to 50 ids or slugs, separated by commas.",
                }
            ],
            "responses": {
                "200": {"description": "In the order of `drives`.", "content": _json("TotalsList")}
            },
            "x-problems": [NotFound, Invalid],
            "security": [],
        }
    },
    "/v1/drives/{drive}/funnel": {
        "get": {
            "operationId": "read_funnel",
            "description": (
                "Read where a drive's visitors come from, and how many of them give.\n\nBy source: views of "
                "its public pages and of its donate form, pledges, and gifts. For the drive's partner and "
                "admins. Views are counted without cookies and without anything about the visitor. "
                "Counts may be ten seconds old."
            ),
            "parameters": [
                _DRIVE,
                _moment("since", "From the hour of this moment; by default 24 hours before `until`."),
                _moment(
                    "until", "Until the end of the hour of this moment; by default now. At most 31 days."
                ),
            ],
            "responses": {"200": {"description": "The funnel.", "content": _json("Funnel")}},
            "x-problems": [NotFound, NotYourDrive, Invalid, PeriodTooLong],
            "security": [{"key": ["drives"]}],
        }
    },
    "/v1/drives/{drive}/live": {
        "get": {
            "operationId": "watch_drive",
            "description": (
                "Watch a drive: server-sent events.\n\n`totals` first and whenever they change, at most 20 a "
                "second; `donation` and `milestone` with the log's sequence as `id`; `gap` has the "
                "address of rows that were missed; after `drain` reconnect. A comment is sent every 15 s. "
                "A new stream begins with an `id` without an event: the sequence from which a client that "
                "has received no row resumes. The schema describes one event."
            ),
            "parameters": [
                _DRIVE,
                _header("Last-Event-ID", "Up to 500 rows after this sequence are replayed.", "155391"),
                {
                    "name": "last_event_id",
                    "in": "query",
                    "required": False,
                    "schema": {"type": "string", "pattern": WITHOUT_NUL},
                    "description": "The same, for clients that cannot set the header. The header wins.",
                },
            ],
            "responses": {
                "200": {
                    "description": "The stream.",
                    "content": {
                        "text/event-stream": {
                            "schema": {"oneOf": [_ref(model.__name__) for model in STREAM_EVENTS]}
                        }
                    },
                }
            },
            "x-problems": [NotFound],
            "security": [],
        }
    },
    **LOG_OPERATIONS,
    "/webhooks/stripe": {
        "post": {
            "operationId": "receive_stripe_webhook",
            "description": (
                "Receive an event from Stripe.\n\nIt is stored before it is answered, and repeats are "
                "answered alike. Events that mean nothing here are stored too."
            ),
            "parameters": [
                {
                    "name": "Stripe-Signature",
                    "in": "header",
                    "required": True,
                    "schema": {"type": "string"},
                    "description": "Stripe's signature of the raw body, not older than 5 minutes.",
                }
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {
                                "id": {"type": "string", "pattern": r"[^\x00]"},
                                "type": {"type": "string", "pattern": r"[^\x00]"},
                                "created": {
                                    "anyOf": [
                                        {"type": "integer", "minimum": -62135596800, "maximum": 253402300799},
                                        {"type": "string", "format": "date-time"},
                                    ]
                                },
                            },
                            "required": ["id", "type", "created"],
                            "examples": [
                                {
                                    "id": "evt_1",
                                    "object": "event",
                                    "type": "payment_intent.succeeded",
                                    "created": 1767808800,
                                    "data": {"object": {"id": "pi_1", "object": "payment_intent"}},
                                }
                            ],
                        }
                    }
                },
            },
            "responses": {"200": {"description": "Stored.", "content": _json("WebhookReceived")}},
            "x-problems": [BodyTooLarge, BadWebhook],
            "security": [],
        }
    },
}
"""The operations that no service describes, and what the gateway changes in those of a service."""


def added_problems(operation: Json, *, keyed: bool, idempotency: str, path: str) -> list[type[Problem]]:
    """The problems that the gateway answers itself for an operation of this kind."""
    kinds: list[type[Problem]] = [DuplicateHeader, TooManyRequests, Overloaded, Unexpected]
    if keyed:
        kinds += [Unauthorized, Forbidden, OriginNotAllowed]
    if "requestBody" in operation and path.startswith("/v1/"):
        kinds += [MalformedJson, UnsupportedMediaType, BodyTooLarge, Invalid]
    if any(one["in"] == "query" for one in operation.get("parameters", ())):
        kinds.append(Invalid)
    if idempotency != "none":
        kinds += [KeyMalformed, KeyReused, RequestInProgress]
    if idempotency == "required":
        kinds.append(KeyMissing)
    return kinds


def problem_response(kinds: Sequence[tuple[str, str]], status: int) -> Json:
    """The response of a status that stands for these problems, each a slug and a title."""
    types = [f"/problems/{slug}" for slug, _ in kinds]
    examples = {
        slug: {
            "summary": title,
            "value": {
                "type": f"/problems/{slug}",
                "title": title,
                "status": status,
                "request_id": "7a95ef8c30df46c5dc31014b",
            },
        }
        for slug, title in kinds
    }
    response: Json = {
        "description": "\n".join(f"- `/problems/{slug}`: {title}" for slug, title in kinds),
        "content": {
            MEDIA_TYPE: {
                "schema": {"allOf": [_ref("Problem")], "properties": {"type": {"enum": types}}},
                "examples": examples,
            }
        },
    }
    headers = ({"Retry-After": _RETRY_AFTER} if status in (429, 503) else {}) | (
        _RATE_LIMITS if status == 429 else {}
    )
    return response | ({"headers": headers} if headers else {})


UNFORESEEN: Final[Json] = {
    "description": "Any other problem (RFC 9457).",
    "content": {MEDIA_TYPE: {"schema": _ref("Problem")}},
}
