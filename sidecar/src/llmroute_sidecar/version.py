"""The gateway's version, as /status and the metrics tell it."""

from importlib.metadata import version

VERSION = version("llmroute-sidecar")
