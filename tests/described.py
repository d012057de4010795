"""Checks what the API answers against the schemas of `/openapi.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

FORMATS = FormatChecker()


@FORMATS.checks("date-time", ValueError)
def is_moment(value: object) -> bool:
    """RFC 3339, section 5.6."""
    if isinstance(value, str) and datetime.fromisoformat(value).tzinfo is None:
        raise ValueError("no time zone")
    return True


STREAM = ("/v1/drives/{drive}/live", "get", "200")


def check(document: Mapping[str, Any], schema: Any, value: Any) -> None:
    """Raises `jsonschema.ValidationError` where `value` does not satisfy `schema` of `document`."""
    whole = {"allOf": [schema], "components": document["components"]}
    Draft202012Validator(whole, format_checker=FORMATS).validate(value)


def check_answer(document: Mapping[str, Any], path: str, method: str, status: int, body: Any) -> None:
    """The same for the JSON that an operation answered with this status."""
    content = document["paths"][path][method]["responses"][str(status)]["content"]
    (media,) = content.values()
    check(document, media["schema"], body)


def check_frame(document: Mapping[str, Any], frame: bytes) -> str:
    """The same for one server-sent event of the live stream, and for the JSON in it; its name."""
    lines = [line.partition(": ") for line in frame.decode().strip().split("\n")]
    event = {name: value for name, _, value in lines}
    path, method, status = STREAM
    media = document["paths"][path][method]["responses"][status]["content"]["text/event-stream"]
    check(document, media["schema"], event)
    names = [one["$ref"].rpartition("/")[2] for one in media["schema"]["oneOf"]]
    schemas = [document["components"]["schemas"][name]["properties"] for name in names]
    (fields,) = [one for one in schemas if one["event"]["const"] == event["event"]]
    check(document, fields["data"]["contentSchema"], json.loads(event["data"]))
    return event["event"]
