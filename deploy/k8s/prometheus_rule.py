"""Write the alert rules of deploy/prometheus/ as a PrometheusRule; `make k8s-check` says when to."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

FOLDER: Final = Path(__file__).parent
RULES: Final = FOLDER.parent / "prometheus"
WRITTEN: Final = FOLDER / "components" / "monitoring" / "prometheus-rule.yaml"

_HEAD: Final = "# Written by prometheus_rule.py from deploy/prometheus/*.rules.yml: change those.\n"


def prometheus_rule() -> str:
    """The PrometheusRule with every group of the rule files."""
    files = sorted(RULES.glob("*.rules.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "ataa"},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(rule, sort_keys=False, allow_unicode=True, width=110)


if __name__ == "__main__":
    WRITTEN.write_text(prometheus_rule(), encoding="utf-8")
