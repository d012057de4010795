"""The key of the public logs of an embedded run is named after its public address."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.app import _log_key
from embedded.data_dir import DataDir
from gateway.settings import GatewaySettings
from gateway.transparency.note_keys import NoteSigner


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://give.example.org", "give.example.org"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[2001:db8::1]:8000", "ipv6-2001:db8::1:8000"),
        ("http://[::1]", "ipv6-::1"),
    ],
)
def test_new_key_has_the_name_of_the_public_address_and_is_kept(
    tmp_path: Path, address: str, name: str
) -> None:
    settings = GatewaySettings(data_dir=tmp_path, public_url=address, internal_secret="x" * 32)
    data = DataDir(tmp_path)
    made = _log_key(data, settings)
    assert NoteSigner.parse(made).name == name
    assert _log_key(data, settings) == made
