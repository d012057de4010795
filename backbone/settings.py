"""Settings: environment variables named `ATAA_…`. An invalid one exits with one line at startup."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backbone import postgres_url

PREFIX = "ATAA_"


def _split_commas(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_split_commas)]
"""A list written as `a,b,c`."""


def _check_database_url(url: str) -> str:
    if url and not url.startswith(("sqlite:///", "postgresql://")):
        raise ValueError("must begin with postgresql:// or sqlite:///")
    if url.startswith("postgresql://"):
        postgres_url.check(url)
    return url


DatabaseUrl = Annotated[str, AfterValidator(_check_database_url)]
"""The URL of a service's database; empty for a SQLite file in the data directory."""


def _check_http_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must be a URL that starts with http:// or https://")
    return url.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
"""The URL of another service, without a trailing slash."""


LogFormat = Literal["auto", "console", "json"]
"""`auto` is `console` where standard output is a terminal, `json` elsewhere."""


class Settings(BaseSettings):
    """Settings of every process of Ataa."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    data_dir: Path = Field(Path(".ataa"), description="Data directory of the embedded run.")
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error."
    )
    log_format: LogFormat = Field(
        "auto", description="console, json, or auto: console on a terminal, JSON lines elsewhere."
    )
    internal_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs calls between services; the embedded run generates one at each start.",
    )
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of /metrics; 0 picks a free port (see ports.json)."
    )


Kind = TypeVar("Kind", bound=Settings)


def load(kind: type[Kind], **given: Any) -> Kind:
    """Read `kind` from the environment; values in `given` take precedence.

    Exits with status 2 and one line on standard error that names the first invalid variable.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        place = problem["loc"][0] if problem["loc"] else "settings"
        exit_with_error(f"{PREFIX}{str(place).upper()}: {problem['msg'].removeprefix('Value error, ')}")


def exit_with_error(line: str) -> NoReturn:
    """Write one line to standard error and exit with status 2."""
    sys.stderr.write(f"ataa: {line}\n")
    raise SystemExit(2)


def describe(kinds: Iterable[type[Settings]]) -> list[tuple[str, str, str]]:
    """(variable, default, description) of every setting, sorted by name; defaults of secrets are hidden."""
    rows: dict[str, tuple[str, str, str]] = {}
    for kind in kinds:
        for name, field in kind.model_fields.items():
            variable = PREFIX + name.upper()
            default = field.get_default(call_default_factory=True)
            shown = "" if isinstance(default, SecretStr) or default in (None, []) else str(default)
            rows[variable] = (variable, shown, field.description or "")
    return [rows[variable] for variable in sorted(rows)]


def unknown_variables(kinds: Iterable[type[Settings]], known: Iterable[str] = ()) -> list[str]:
    """Variables in the environment with our prefix that are no settings: probably typing errors."""
    names = {variable for variable, _, _ in describe(kinds)} | set(known)
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in names)
