"""Configuration from a directory of compiled files: a mounted ConfigMap, or what `llmroute compile -o` wrote.

Owns which files count and that they are read as one set. kubelet's `..data` swap, bounds and fingerprints are
`files.py`'s.
"""

import time
from collections.abc import Callable, Hashable
from pathlib import Path

from llmroute_contract.compiled import GATEWAY_FILE
from llmroute_sidecar.config.files import Contents, InTrouble, Unusable, read_together, visible_in, volume_link
from llmroute_sidecar.config.secrets import SecretValues, read_secrets, secrets_paths
from llmroute_sidecar.config.source import Reading, SourceError, TryAgain

FILE_MAX_BYTES = 1024 * 1024


class DirectorySource:
    """Compiled files in `config_dir`, secrets below `secrets_dir`."""

    def __init__(self, config_dir: Path, secrets_dir: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._config_dir = config_dir
        self._secrets_dir = secrets_dir
        self._contents = Contents(FILE_MAX_BYTES, now_ns)

    def fingerprint(self) -> Hashable:
        config = (self._config_dir, *visible_in(self._config_dir))
        return self._contents.fingerprint([*config, *secrets_paths(self._secrets_dir)])

    def mark(self) -> Hashable:
        return volume_link(self._config_dir)

    def read(self) -> Reading:
        directory = self._config_dir
        try:
            found = read_together(directory, _is_configuration, FILE_MAX_BYTES)
        except FileNotFoundError:
            raise SourceError(f"there is no directory {directory}") from None
        except Unusable as error:
            raise TryAgain(f"{directory} {error}") from None
        if not found.files and not found.unusable:
            raise SourceError(f"{directory} holds no configuration")
        unusable = {name: str(error) for name, error in found.unusable.items()}
        if GATEWAY_FILE in unusable:
            raise TryAgain(f"{directory}/{GATEWAY_FILE} {unusable[GATEWAY_FILE]}")
        if GATEWAY_FILE not in found.files:
            raise SourceError(f"{directory} has no {GATEWAY_FILE}")
        secrets = read_secrets(self._secrets_dir)
        in_trouble = secrets.in_trouble or any(isinstance(error, InTrouble) for error in found.unusable.values())
        return Reading(found.files, SecretValues(secrets.values), secrets.problems, unusable, in_trouble)


def _is_configuration(name: str) -> bool:
    return name.endswith(".json")
