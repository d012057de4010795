"""Every variable that deploy/ sets is a setting of Ataa."""

from __future__ import annotations

import re

from backbone.settings import describe
from embedded.settings import ALL_SETTINGS, OUTSIDE
from tests.deploy.manifests import DEPLOY, ROOT

MADE_OF = {".yaml", ".yml", ".env", ".sh", ".md", ""}


def test_every_documented_variable_is_a_setting() -> None:
    settings = {variable for variable, _, _ in describe(ALL_SETTINGS)} | set(OUTSIDE)
    files = [file for file in DEPLOY.rglob("*") if file.is_file() and file.suffix in MADE_OF]
    files += [ROOT / "Dockerfile", ROOT / "docs" / "operations" / "kubernetes.md"]
    named = {name: file for file in files for name in re.findall(r"\bATAA_[A-Z0-9_]+", file.read_text())}
    assert len(named) > 20
    assert {name: str(file) for name, file in named.items() if name not in settings} == {}


def test_default_is_shown_in_the_format_of_the_variable() -> None:
    shown = {variable: default for variable, default, _ in describe(ALL_SETTINGS)}
    assert not [variable for variable, default in shown.items() if default in ("None", "[]")]
    assert not [variable for variable, default in shown.items() if "Undefined" in default]
    assert shown["ATAA_KAFKA_SASL_MECHANISM"] == "SCRAM-SHA-512"
