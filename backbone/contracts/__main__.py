"""Writes each event's JSON Schema: `python -m backbone.contracts FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from backbone.contracts import wire_names


def main(folder: Path) -> None:
    """Write one file per event, named by its wire name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind in sorted(wire_names().items()):
        schema = kind.model_json_schema(mode="serialization")
        (folder / f"{name}.json").write_text(json.dumps(schema, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
