"""The answers Stripe gives instead of an object (https://docs.stripe.com/api/errors)."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A request that is not granted: HTTP status and Stripe's error object.

    `executed` says that the endpoint had begun its work, so an idempotency key keeps this answer; refused
    parameters are not kept (https://docs.stripe.com/api/idempotent_requests).
    """

    def __init__(self, status: int, error: dict[str, Any], executed: bool = False) -> None:
        super().__init__(error["message"])
        self.status = status
        self.error = error
        self.executed = executed

    def body(self) -> dict[str, Any]:
        return {"error": self.error}


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """400 for parameters that cannot be."""
    error: dict[str, Any] = {"type": "invalid_request_error", "message": message}
    if code is not None:
        error["code"] = code
        error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
    if param is not None:
        error["param"] = param
    return Refusal(400, error)


def impossible(message: str, code: str, param: str | None = None) -> Refusal:
    """400 for well-formed parameters that the object's state forbids; its idempotency key keeps it."""
    refusal = invalid(message, param, code)
    refusal.executed = True
    return refusal


def missing(kind: str, given_id: str, param: str = "id", status: int = 404) -> Refusal:
    """404 for an id nobody knows (400 where the id is a list's cursor or a parameter)."""
    refusal = invalid(f"No such {kind}: '{given_id}'", param, "resource_missing")
    refusal.status = status
    return refusal


def missing_parameter(param: str) -> Refusal:
    """400 in Stripe's words for a parameter that is not there."""
    return invalid(f"Missing required param: {param}.", param, "parameter_missing")


def unauthorized(message: str) -> Refusal:
    """401 in Stripe's words."""
    return Refusal(401, {"type": "invalid_request_error", "message": message})


def too_fast() -> Refusal:
    """429 in Stripe's words (https://docs.stripe.com/rate-limits)."""
    message = (
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits."
    )
    return Refusal(
        429,
        {
            "type": "invalid_request_error",
            "code": "rate_limit",
            "message": message,
            "doc_url": "https://stripe.com/docs/error-codes/rate-limit",
        },
    )


def broken() -> Refusal:
    """500, as when Stripe itself fails."""
    message = "An unknown error occurred. Please retry, or contact us at https://support.stripe.com/."
    return Refusal(500, {"type": "api_error", "message": message})


def unknown_url(method: str, path: str) -> Refusal:
    """404 in Stripe's words for a route the sandbox does not offer."""
    refusal = invalid(f"Unrecognized request URL ({method}: {path}). The sandbox does not offer it.")
    refusal.status = 404
    return refusal
