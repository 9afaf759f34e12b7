"""The version of this build, as the package's metadata has it."""

from importlib.metadata import version

VERSION = version("llmroute-operator")
