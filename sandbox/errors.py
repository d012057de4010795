"""Stripe's error responses (https://docs.stripe.com/api/errors)."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refused request: HTTP status and Stripe's error object.

    `executed` is true if the endpoint had begun its work, so the idempotency key stores the response; invalid
    parameters are not stored (https://docs.stripe.com/api/idempotent_requests).
    """

    def __init__(self, status: int, error: dict[str, Any], executed: bool = False) -> None:
        super().__init__(error["message"])
        self.status = status
        self.error = error
        self.executed = executed

    def body(self) -> dict[str, Any]:
        return {"error": self.error}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400 for invalid parameters."""
    error: dict[str, Any] = {"type": "invalid_request_error", "message": message}
    if code is not None:
        error["code"] = code
        error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
    if param is not None:
        error["param"] = param
    return ApiError(400, error)


def invalid_state(message: str, code: str, param: str | None = None) -> ApiError:
    """400 for valid parameters that the object's state forbids; the idempotency key stores it."""
    api_error = invalid(message, param, code)
    api_error.executed = True
    return api_error


def not_found(kind: str, given_id: str, param: str = "id", status: int = 404) -> ApiError:
    """404 for an unknown id; `status` 400 where the id is a cursor or a parameter."""
    api_error = invalid(f"No such {kind}: '{given_id}'", param, "resource_missing")
    api_error.status = status
    return api_error


def missing_parameter(param: str) -> ApiError:
    """400 for a missing parameter, in Stripe's wording."""
    return invalid(f"Missing required param: {param}.", param, "parameter_missing")


def unauthorized(message: str) -> ApiError:
    """401, in Stripe's format."""
    return ApiError(401, {"type": "invalid_request_error", "message": message})


def rate_limited() -> ApiError:
    """429, in Stripe's wording (https://docs.stripe.com/rate-limits)."""
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
    """500, as Stripe returns when it fails itself."""
    message = "An unknown error occurred. Please retry, or contact us at https://support.stripe.com/."
    return ApiError(500, {"type": "api_error", "message": message})


def unknown_url(method: str, path: str) -> ApiError:
    """404 for a route that the sandbox does not implement."""
    api_error = invalid(f"Unrecognized request URL ({method}: {path}). The sandbox does not implement it.")
    api_error.status = 404
    return api_error
