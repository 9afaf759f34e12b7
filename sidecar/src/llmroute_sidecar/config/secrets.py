"""Secret values: from mounted files, or from the Secret manifests of a local run."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

SECRET_MAX_BYTES = 1024 * 1024
ENTRIES_MAX = 10_000


class DirectorySecrets:
    """`<folder>/<secret>/<key>`, as Kubernetes mounts Secrets. Read anew each time: rotated values are seen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, secret: str, key: str) -> bytes | None:
        return _read(self._folder / secret / key)

    def entries(self, secret: str) -> Mapping[str, bytes] | None:
        folder = self._folder / secret
        try:
            names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))[:ENTRIES_MAX]
        except OSError:
            return None
        found = {name: _read(folder / name) for name in names}
        return {name: value for name, value in found.items() if value is not None} or None


def _read(path: Path) -> bytes | None:
    """A regular file's bytes, up to the size that a Secret can have."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(SECRET_MAX_BYTES)
    except OSError:
        return None


class ManifestSecrets:
    """Values given at hand: the Secrets of a YAML file, or keys from the environment."""

    def __init__(self, values: Mapping[str, Mapping[str, bytes]]) -> None:
        self._values = values

    def read(self, secret: str, key: str) -> bytes | None:
        return self._values.get(secret, {}).get(key)

    def entries(self, secret: str) -> Mapping[str, bytes] | None:
        return self._values.get(secret)

    def __repr__(self) -> str:
        return f"ManifestSecrets({sorted(self._values)})"


def secret_values(manifest: Mapping[str, object]) -> dict[str, bytes]:
    """`data` (base64) and `stringData` of a Secret manifest. Raises ValueError, naming the entry and never its
    value.
    """
    values: dict[str, bytes] = {}
    for field, plain in (("data", False), ("stringData", True)):
        entries = manifest.get(field) or {}
        if not isinstance(entries, Mapping):
            raise ValueError(f"{field} must be a map of texts")
        for key, value in entries.items():
            if not isinstance(value, str):
                raise ValueError(f"{field}.{key} must be a text")
            try:
                values[str(key)] = value.encode() if plain else base64.b64decode(value, validate=True)
            except binascii.Error:
                raise ValueError(f"{field}.{key} is not base64; use stringData for plain texts") from None
    return values
