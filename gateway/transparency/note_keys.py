"""Ed25519 keys of signed notes (C2SP signed-note), in the form that `golang.org/x/mod/sumdb/note` reads.

A signer key is `PRIVATE+KEY+<name>+<key ID>+<base64 of 0x01 and the seed>`; a verifier key is
`<name>+<key ID>+<base64 of 0x01 and the public key>`. The key ID is eight hexadecimal digits: the first four
bytes of SHA-256 over the name, a newline, 0x01 and the public key.
"""

from __future__ import annotations

import binascii
import re
import secrets
import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_ED25519: Final = b"\1"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:/_-]{0,199}", re.ASCII)
_SIGNER: Final = re.compile(r"PRIVATE\+KEY\+([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})", re.ASCII)


class NoteSigner:
    """A signer key; `name` is the first part of the origin of every log that it signs."""

    def __init__(self, name: str, seed: bytes) -> None:
        if _NAME.fullmatch(name) is None:
            raise ValueError("the name of a log key is a host name, without spaces and plus signs")
        self.name = name
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = _ED25519 + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def parse(cls, text: str) -> NoteSigner:
        """The signer that `text` encodes. Raises ValueError, without the key in its message."""
        found = _SIGNER.fullmatch(text)
        if found is None:
            raise ValueError("must be PRIVATE+KEY+<name>+<key ID>+<base64>, as a new log key is printed")
        try:
            key = b64decode(found[3], validate=True)
        except binascii.Error:
            raise ValueError("must end in the base64 of 33 bytes") from None
        if key[:1] != _ED25519:
            raise ValueError("must be a key of Ed25519")
        signer = cls(found[1], key[1:])
        if signer._key_id(signer.name).hex() != found[2]:
            raise ValueError("must have the key ID of its name and key")
        return signer

    def encode(self) -> str:
        """The signer key as `parse` reads it: a secret."""
        key = b64encode(_ED25519 + self._seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self._key_id(self.name).hex()}+{key}"

    def verifier_key(self, name: str | None = None) -> str:
        """The key with which others verify the signatures that have this name."""
        name = name or self.name
        return f"{name}+{self._key_id(name).hex()}+{b64encode(self._public).decode()}"

    def sign(self, text: str, names: tuple[str, ...]) -> str:
        """A note of `text`, which ends in a newline, with a signature line for each of these names."""
        signature = self._key.sign(text.encode())
        lines = (
            f"\N{EM DASH} {name} {b64encode(self._key_id(name) + signature).decode()}\n" for name in names
        )
        return f"{text}\n{''.join(lines)}"

    def _key_id(self, name: str) -> bytes:
        return sha256(name.encode() + b"\n" + self._public).digest()[:4]


def new_signer(name: str) -> NoteSigner:
    """A new key."""
    return NoteSigner(name, secrets.token_bytes(32))


def main() -> None:
    """`python -m gateway.transparency.note_keys NAME`: print a new signer key for this host name."""
    try:
        (name,) = sys.argv[1:]
        signer = new_signer(name)
    except ValueError:
        sys.exit("usage: python -m gateway.transparency.note_keys HOST, such as give.example.org")
    sys.stdout.write(f"ATAA_LOG_KEY={signer.encode()}\n# verified with {signer.verifier_key()}\n")


if __name__ == "__main__":
    main()
