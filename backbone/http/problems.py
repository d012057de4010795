"""Problem documents (RFC 9457), the format of every error response."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from backbone.database.transient import RESOURCES_EXHAUSTED, transient_failure

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An error that is reported to the client; each problem type is a subclass.

    `errors` lists `{"pointer": "/amount/value", "detail": …}` for a 422. `headers` are headers of the
    response, such as `Retry-After`. Input is never echoed.
    """

    status: ClassVar[int] = 400
    slug: ClassVar[str] = "bad-request"
    title: ClassVar[str] = "Bad request"

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def document(self, request_id: str | None = None) -> dict[str, Any]:
        """The problem document as a JSON object."""
        body: dict[str, Any] = {"type": f"/problems/{self.slug}", "title": self.title, "status": self.status}
        if self.detail:
            body["detail"] = self.detail
        if self.errors:
            body["errors"] = self.errors
        if request_id:
            body["request_id"] = request_id
        return body


class MalformedJson(Problem):
    status, slug, title = 400, "malformed-json", "The body is not JSON"


class Unauthorized(Problem):
    status, slug, title = 401, "unauthorized", "Missing or invalid API key"


class Forbidden(Problem):
    status, slug, title = 403, "forbidden", "This API key may not do this"


class NotFound(Problem):
    status, slug, title = 404, "not-found", "Not found"


class MethodNotAllowed(Problem):
    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class Conflict(Problem):
    status, slug, title = 409, "conflict", "Conflict with the current state"


class BodyTooLarge(Problem):
    status, slug, title = 413, "body-too-large", "The body is too large"


class UnsupportedMediaType(Problem):
    status, slug, title = 415, "unsupported-media-type", "The body must be application/json"


class Invalid(Problem):
    status, slug, title = 422, "invalid-request", "Invalid request"


class TooManyRequests(Problem):
    status, slug, title = 429, "too-many-requests", "Too many requests"


class Unexpected(Problem):
    status, slug, title = 500, "internal-error", "Internal error"


class Overloaded(Problem):
    """A queue is full, or a dependency is unavailable; the client should retry after `retry_after_s`."""

    status, slug, title = 503, "overloaded", "Temporarily overloaded"

    def __init__(self, detail: str = "", *, retry_after_s: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


def documented(*classes: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """These problems as FastAPI's `responses` takes them, for the gateway to complete."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in classes:
        response = found.setdefault(kind.status, {"description": "", "x-problems": {}})
        response["x-problems"][kind.slug] = kind.title
    for response in found.values():
        response["description"] = "; ".join(response["x-problems"].values())
    return found


def problem_of_status(status: int) -> Problem:
    """The plain problem of an HTTP status, for errors raised by the framework.

    Its only 400 is a body that it cannot parse: one that is not UTF-8, for example.
    """
    classes = (
        MalformedJson,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        UnsupportedMediaType,
        BodyTooLarge,
    )
    for kind in classes:
        if kind.status == status:
            return kind()
    return Unexpected() if status >= 500 else Problem()


def pointer(location: Sequence[int | str]) -> str:
    """The JSON pointer (RFC 6901) of a validation error's location."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def from_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The problem of failed validation; it does not contain the input."""
    if any(error["type"] == "json_invalid" for error in errors):
        return MalformedJson()
    seen = [
        {"pointer": pointer(_field(error["loc"])), "detail": str(error["msg"]).removeprefix("Value error, ")}
        for error in errors[:20]
        if not _is_unset(error)
    ]
    for error in errors:
        kind = (error.get("ctx") or {}).get("error")
        if isinstance(kind, ProblemValueError):
            return kind.problem(seen)
    return Invalid("Some fields are invalid.", errors=seen)


_PARAMETERS = ("query", "path", "header")


def _field(location: Sequence[int | str]) -> Sequence[int | str]:
    """The location in the terms of the client: a field of the body, or the name of a parameter.

    Parameters are scalars. What follows a parameter's name is the branch of its type union that failed.
    """
    if location[:1] == ("body",):
        return location[1:]
    return location[:2] if location and location[0] in _PARAMETERS else location


def _is_unset(error: Mapping[str, Any]) -> bool:
    """Whether an optional parameter was compared with "not sent": the error of its type is reported too."""
    location = error["loc"]
    return error["type"] == "none_required" and len(location) > 2 and location[0] in _PARAMETERS


class ProblemValueError(ValueError):
    """A validation error with a problem type of its own."""

    kind: type[Problem] = Invalid

    def problem(self, errors: Sequence[Mapping[str, str]]) -> Problem:
        return self.kind(str(self), errors=errors)


def response(problem: Problem, request: Request) -> Response:
    """The HTTP response with `problem`."""
    body = json.dumps(problem.document(request.headers.get("x-request-id")), ensure_ascii=False)
    return Response(
        body.encode("utf-8", "replace"), problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document: no stack trace, no HTML, no input."""

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return response(error, request)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response(from_validation(error.errors()), request)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return response(problem_of_status(error.status_code), request)

    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("request.failed", path=request.url.path, error=type(error).__name__)
        return response(Unexpected(), request)

    async def transient(request: Request, error: Exception) -> Response:
        reason = _retry_reason(error)
        if reason is None:
            raise error
        # Handled here and not re-raised: the server would close the connection that the gateway reuses.
        log.warning("request.interrupted", path=request.url.path, error=type(error).__name__, reason=reason)
        return response(Overloaded(reason), request)

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(SQLAlchemyError, transient)
    app.add_exception_handler(OSError, transient)
    app.add_exception_handler(Exception, unexpected)


def _retry_reason(error: Exception) -> str | None:
    """The reason, for the client, why the same request may succeed later; None where it will not."""
    found = transient_failure(error)
    if found is not None:
        return found.value
    if isinstance(error, ConnectionError | TimeoutError):
        return "A dependency of this service is temporarily unavailable."
    if isinstance(error, OSError) and error.errno in RESOURCES_EXHAUSTED:
        return "The server has temporarily run out of storage or memory."
    return None
