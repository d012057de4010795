"""Enumerations a newer version may add to: an event with a value this version does not know is readable.

Services are upgraded one by one (decision 3), so a consumer may meet such a value before it is upgraded
itself. A closed enumeration would refuse the whole event, with the money in it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

Known = TypeVar("Known", bound=StrEnum)


@dataclass(frozen=True)
class OpenValues:
    """Makes a field `str`, with a member of `values` for each value this version knows.

    `Annotated[PledgeStatus | str, OpenValues(PledgeStatus)]`: a value that is not known stays the text
    that was sent, so it is forwarded and stored unchanged. Consumers compare with `==`, or ask `known`.
    """

    values: Iterable[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members: Mapping[str, str] = {str(value): value for value in self.values}
        return core_schema.no_info_after_validator_function(
            lambda text: members.get(text, text), core_schema.str_schema(min_length=1)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        # `examples`, not `enum`: readers that validate by the schema must not refuse what is new either.
        described = {"type": "string", "examples": [str(value) for value in self.values]}
        if isinstance(self.values, type):
            described["description"] = f"{inspect.getdoc(self.values)} A newer version may send others."
        return described


def known(kind: type[Known], value: str) -> Known | None:
    """The member of `kind` that `value` is; None for a value of a newer version."""
    try:
        return kind(value)
    except ValueError:
        return None
