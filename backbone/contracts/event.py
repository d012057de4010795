"""The base of all events: an immutable past-tense fact with a wire name, a topic and a key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.functional_validators import PlainValidator

from backbone.clock import rfc3339
from backbone.contracts.codec import Codec
from backbone.money import Money

_KINDS: Final[dict[str, type[Event]]] = {}


def _read_money(value: object) -> Money:
    match value:
        case Money():
            return value
        case {"minor_units": int(units), "currency": str(currency)}:
            return Money(units, currency)
        case _:
            raise ValueError("money is {minor_units, currency}")


MoneyField = Annotated[
    Money,
    PlainValidator(_read_money, json_schema_input_type=dict[str, int | str]),
    PlainSerializer(
        lambda money: {"minor_units": money.minor_units, "currency": money.currency},
        return_type=dict[str, int | str],
    ),
]
"""`Money` in an event: `{"minor_units": 2500, "currency": "USD"}`."""

Timestamp = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]


class Event(BaseModel):
    """A fact. Subclasses declare their wire name, their topic, and the field that is their key."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    wire_name: ClassVar[str]
    topic: ClassVar[str]
    key_field: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, *, name: str = "", topic: str = "", key: str = "", **_: Any) -> None:
        if not name:
            return
        cls.wire_name, cls.topic, cls.key_field = name, topic, key
        assert name not in _KINDS, f"two events are called {name}"
        _KINDS[name] = cls

    @property
    def key(self) -> str:
        """The value of the key field. Events with equal keys keep their order."""
        return str(getattr(self, self.key_field))

    def to_bytes(self) -> bytes:
        """The event as JSON, UTF-8."""
        return codec_of(type(self)).encode(self)

    @classmethod
    def of_valid(cls, **fields: Any) -> Self:
        """An event whose fields are valid, without checking them."""
        event: Self = codec_of(cls).construct(fields)
        return event


@cache
def codec_of(kind: type[BaseModel]) -> Codec:
    """The codec of a class of events; built at its first use, when the class is complete."""
    return Codec(kind)


def decode(name: str, value: bytes) -> Event | None:
    """Decode an event; None for a wire name that this version does not know.

    Raises `pydantic.ValidationError` where `value` is not such an event.
    """
    kind = _KINDS.get(name)
    if kind is None:
        return None
    event: Event | None = codec_of(kind).decode(value)
    return kind.model_validate_json(value) if event is None else event


def wire_names() -> Mapping[str, type[Event]]:
    """All events by wire name."""
    return _KINDS
