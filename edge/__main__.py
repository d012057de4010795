"""Run the publisher as its own process: `python -m edge`."""

from backbone.process import run_on_uvloop
from backbone.settings import exit_with_error, load
from backbone.telemetry import configure_logs
from edge.app import run
from edge.settings import EdgeSettings

settings = load(EdgeSettings)
configure_logs(settings.log_level, settings.log_format)
if not settings.edge_drives:
    exit_with_error("ATAA_EDGE_DRIVES: must name the drives to publish, separated by commas")
run_on_uvloop(run(settings))
