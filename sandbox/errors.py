"""The answers Stripe gives instead of an object (https://docs.stripe.com/api/errors)."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
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


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400 for parameters that cannot be."""
    error: dict[str, Any] = {"type": "invalid_request_error", "message": message}
    if code is not None:
        error["code"] = code
        error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
    if param is not None:
        error["param"] = param
    return ApiError(400, error)


def invalid_state(message: str, code: str, param: str | None = None) -> ApiError:
    """400 for well-formed parameters that the object's state forbids; its idempotency key keeps it."""
    api_error = invalid(message, param, code)
    api_error.executed = True
    return api_error


def not_found(kind: str, given_id: str, param: str = "id", status: int = 404) -> ApiError:
    """404 for an id nobody knows (400 where the id is a list's cursor or a parameter)."""
    api_error = invalid(f"No such {kind}: '{given_id}'", param, "resource_missing")
    api_error.status = status
    return api_error


def missing_parameter(param: str) -> ApiError:
    """400 in Stripe's words for a parameter that is not there."""
    return invalid(f"Missing required param: {param}.", param, "parameter_missing")


def unauthorized(message: str) -> ApiError:
    """401 in Stripe's words."""
    return ApiError(401, {"type": "invalid_request_error", "message": message})


def rate_limited() -> ApiError:
    """429 in Stripe's words (https://docs.stripe.com/rate-limits)."""
    message = (
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits."
    )
    return ApiError(
        429,
        {
            "type": "invalid_request_error",
            "code": "rate_limit",
            "message": message,
            "doc_url": "https://stripe.com/docs/error-codes/rate-limit",
        },
    )


def server_error() -> ApiError:
    """500, as when Stripe itself fails."""
    message = "An unknown error occurred. Please retry, or contact us at https://support.stripe.com/."
    return ApiError(500, {"type": "api_error", "message": message})


def unknown_url(method: str, path: str) -> ApiError:
    """404 in Stripe's words for a route the sandbox does not offer."""
    api_error = invalid(f"Unrecognized request URL ({method}: {path}). The sandbox does not offer it.")
    api_error.status = 404
    return api_error
