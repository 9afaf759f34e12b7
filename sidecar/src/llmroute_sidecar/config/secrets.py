"""Secret values: from mounted files, or from the Secret manifests of a local run.

Owns how they are laid out (`<directory>/<secret>/<entry>`, as Kubernetes mounts Secrets) and their bounds. They are
read whole with each reading of the configuration, so that rotated values are seen, and kept no longer than it takes to
build a snapshot.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmroute_sidecar.config.files import InTrouble, Unusable, names_in, read_together, visible_in, while_it_stands

ENTRY_MAX_BYTES = 1024 * 1024
"""A Secret can have no more in Kubernetes."""
TOTAL_MAX_BYTES = 64 * 1024 * 1024
"""For a folder that was named by mistake."""


@dataclass(frozen=True, slots=True)
class SecretValues:
    """Values at hand, by Secret and entry (`snapshot.Secrets`)."""

    values: Mapping[str, Mapping[str, bytes]] = field(repr=False)

    def read(self, secret: str, key: str) -> bytes | None:
        return self.values.get(secret, {}).get(key)

    def entries(self, secret: str) -> Mapping[str, bytes] | None:
        return self.values.get(secret)


@dataclass(frozen=True, slots=True)
class MountedSecrets:
    """What was found in a directory."""

    values: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    problems: tuple[str, ...] = ()
    """Entries that are there and could not be taken, and why."""
    in_trouble: bool = False
    """Whether a cause of these may pass while the files stay as they are."""


def read_secrets(directory: Path) -> MountedSecrets:
    """All Secrets mounted below `directory`: each a volume of its own, or all in one projected volume. One that is not
    there, or is empty, is missing. Never raises.
    """
    try:
        return while_it_stands(directory, _read_secrets)
    except FileNotFoundError:
        return MountedSecrets()
    except Unusable as error:
        return MountedSecrets(problems=(f"{directory} {error}",), in_trouble=True)


def _read_secrets(directory: Path) -> MountedSecrets:
    values: dict[str, Mapping[str, bytes]] = {}
    unusable: dict[str, Unusable] = {}
    total = 0
    for name in names_in(directory):
        if name.startswith(".") or not (directory / name).is_dir():
            continue
        try:
            found = read_together(directory / name, lambda _: True, ENTRY_MAX_BYTES)
        except FileNotFoundError:
            continue
        except Unusable as error:
            unusable[name] = error
            continue
        unusable |= {f"{name}/{entry}": error for entry, error in found.unusable.items()}
        total += sum(map(len, found.files.values()))
        if total > TOTAL_MAX_BYTES:
            unusable[name] = Unusable(f"is not taken: all Secrets there have more than {TOTAL_MAX_BYTES} bytes")
        elif found.files:
            values[name] = found.files
    problems = tuple(f"Secret {name} {error}" for name, error in unusable.items())
    return MountedSecrets(values, problems, any(isinstance(error, InTrouble) for error in unusable.values()))


def secrets_paths(directory: Path) -> Iterator[Path]:
    """What a fingerprint of mounted Secrets has to look at."""
    yield directory
    for secret in visible_in(directory):
        yield secret
        yield from visible_in(secret)


def secret_values(manifest: Mapping[str, object]) -> dict[str, bytes]:
    """`data` (base64) and `stringData` of a Secret manifest. Raises ValueError, naming the entry and never its
    value.
    """
    values: dict[str, bytes] = {}
    for part, plain in (("data", False), ("stringData", True)):
        entries = manifest.get(part) or {}
        if not isinstance(entries, Mapping):
            raise ValueError(f"{part} must be a map of texts")
        for key, value in entries.items():
            if not isinstance(value, str):
                raise ValueError(f"{part}.{key} must be a text")
            try:
                values[str(key)] = value.encode() if plain else base64.b64decode(value, validate=True)
            except ValueError:  # binascii.Error is one; what is not ASCII is another
                raise ValueError(f"{part}.{key} is not base64; use stringData for plain texts") from None
    return values
