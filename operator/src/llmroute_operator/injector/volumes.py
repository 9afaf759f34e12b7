"""The volumes that the gateway reads, and where its container mounts them: its ConfigMap, and Secrets each in a folder
of its own. All are optional and read-only. No other container mounts them."""

import hashlib
import re
from collections.abc import Iterable

from llmroute_contract.compiled import configmap_name
from llmroute_contract.pods import CONFIG_DIRECTORY, CONFIG_VOLUME, VOLUME_PREFIX
from llmroute_contract.scalars import LABEL_PATTERN
from llmroute_contract.secrets import secret_directory
from llmroute_operator.injector.pod import Document

TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a folder
NO_TOKEN_VOLUME = f"{VOLUME_PREFIX}no-token"
"""An empty folder over the service account's token. The ServiceAccount admission adds the token to every container that
mounts nothing there; a container alone cannot decline it."""
_SECRET_VOLUME_PREFIX = f"{VOLUME_PREFIX}secret-"
_VOLUME_NAME_MAX = 63
_MODE = 0o444
"""The gateway is not root, and owns no file in them."""


def volumes(gateway: str, secrets: Iterable[str]) -> list[Document]:
    return [
        {
            "name": CONFIG_VOLUME,
            "configMap": {"name": configmap_name(gateway), "optional": True, "defaultMode": _MODE},
        },
        {"name": NO_TOKEN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}},
        *(
            {
                "name": secret_volume(secret),
                "secret": {"secretName": secret, "optional": True, "defaultMode": _MODE},
            }
            for secret in sorted(secrets)
        ),
    ]


def mounts(secrets: Iterable[str]) -> list[Document]:
    return [
        _mount(CONFIG_VOLUME, CONFIG_DIRECTORY),
        _mount(NO_TOKEN_VOLUME, TOKEN_DIRECTORY),
        *(_mount(secret_volume(secret), secret_directory(secret)) for secret in sorted(secrets)),
    ]


def secret_volume(secret: str) -> str:
    """A volume's name must be a DNS label, which a Secret's need not be."""
    name = f"{_SECRET_VOLUME_PREFIX}{secret}"
    if len(name) <= _VOLUME_NAME_MAX and re.fullmatch(LABEL_PATTERN, name):
        return name
    return f"{_SECRET_VOLUME_PREFIX}{hashlib.sha256(secret.encode()).hexdigest()[:32]}"


def _mount(volume: str, path: str) -> Document:
    return {"name": volume, "mountPath": path, "readOnly": True}
