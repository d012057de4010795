"""Open enumerations: an event with a value that only a newer version knows can still be decoded.

Services are upgraded one by one (decision 3), so a consumer may receive such a value before it is upgraded. A
closed enumeration would reject the whole event, including its amounts.
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
    """Validates a field as `str`, and replaces known values by the members of `values`.

    `Annotated[PledgeStatus | str, OpenValues(PledgeStatus)]`: an unknown value stays the string that was
    sent, so it is stored and forwarded unchanged. Consumers compare with `==`, or call `known`.
    """

    values: Iterable[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members: Mapping[str, str] = {str(value): value for value in self.values}
        return core_schema.no_info_after_validator_function(
            lambda text: members.get(text, text), core_schema.str_schema(min_length=1)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        # `examples`, not `enum`: consumers that validate by the schema must accept new values too.
        described = {"type": "string", "examples": [str(value) for value in self.values]}
        if isinstance(self.values, type):
            described["description"] = f"{inspect.getdoc(self.values)} A newer version may send others."
        return described


def known(kind: type[Known], value: str) -> Known | None:
    """The member of `kind` with this value; None for a value of a newer version."""
    try:
        return kind(value)
    except ValueError:
        return None
