"""Lays what the injector wants over what a pod has: nothing of it twice, nothing of others lost.

A pod may come with a gateway already: from a second call (reinvocation), from a client that knew no `restartPolicy` of
init containers and dropped it, or as a copy of a running pod. What is the injector's is brought to what it should be;
what another webhook added to the gateway's container (a variable, a mount) is left there.
"""

from collections.abc import Iterable, Mapping, Sequence

from llmroute_contract.pods import GATEWAY_CONTAINER, SECRETS_DIRECTORY, VOLUME_PREFIX
from llmroute_operator.injector.pod import Document
from llmroute_operator.injector.quantity import amount

_KEYS = {"env": "name", "ports": "name", "volumeMounts": "mountPath"}
"""Lists of a container that are maps in truth, by what."""
_ONE_OR_THE_OTHER = ("startupProbe", "lifecycle")
"""How the app is held back: by what the settings say now, not by what they said when the copy was made."""


def with_gateway(init_containers: Sequence[Document], wanted: Document) -> list[Document]:
    """The gateway first, unless only other sidecars stand before it: init containers may then call it, and a mesh's
    proxy may keep its place."""
    found = next((one for one in init_containers if one.get("name") == GATEWAY_CONTAINER), None)
    if found is None:
        return [wanted, *init_containers]
    healed = _laid_over(found, wanted)
    others = [one for one in init_containers if one.get("name") != GATEWAY_CONTAINER]
    before = init_containers[: init_containers.index(found)]
    if all(one.get("restartPolicy") == "Always" for one in before):
        return [*others[: len(before)], healed, *others[len(before) :]]
    return [healed, *others]


def with_volumes(volumes: Sequence[Document], wanted: Sequence[Document]) -> list[Document]:
    by_name = {volume["name"]: volume for volume in wanted}
    kept = [
        by_name.pop(volume["name"], volume)
        for volume in volumes
        if volume["name"] in by_name or not volume["name"].startswith(VOLUME_PREFIX)
    ]
    return [*kept, *by_name.values()]


def taken_volume_names(volumes: Iterable[Document]) -> list[str]:
    """Volumes of the pod's own that have the injector's names, in a pod that has no gateway yet."""
    return [volume["name"] for volume in volumes if volume["name"].startswith(VOLUME_PREFIX)]


def _laid_over(found: Document, wanted: Document) -> Document:
    healed = {**found, **{field: wanted[field] for field in wanted if field not in _KEYS}}
    for field in _ONE_OR_THE_OTHER:
        if field not in wanted:
            healed.pop(field, None)
    healed["securityContext"] = {**(found.get("securityContext") or {}), **wanted["securityContext"]}
    if "resources" in wanted:
        healed["resources"] = _laid_over_resources(found.get("resources") or {}, wanted["resources"])
    for field, key in _KEYS.items():
        healed[field] = _laid_over_list(found.get(field) or [], wanted[field], key)
    healed["volumeMounts"] = [
        mount for mount in healed["volumeMounts"] if mount in wanted["volumeMounts"] or not _is_old_secret(mount)
    ]
    return healed


def _laid_over_list(found: Sequence[Document], wanted: Sequence[Document], key: str) -> list[Document]:
    by_key = {item[key]: item for item in wanted}
    return [*(by_key.pop(item.get(key), item) for item in found), *by_key.values()]


def _laid_over_resources(found: Document, wanted: Document) -> Document:
    """The API server writes `1000m` as `1`: what is as much stays."""
    healed = {**found}
    for kind, amounts in wanted.items():
        there = found.get(kind) or {}
        healed[kind] = {
            **there,
            **{name: text for name, text in amounts.items() if amount(there.get(name)) != amount(text)},
        }
    return healed


def _is_old_secret(mount: Mapping[str, object]) -> bool:
    """Of a Secret that the routes needed when the pod's copy was made."""
    return str(mount.get("mountPath")).startswith(f"{SECRETS_DIRECTORY}/")
