"""A pod's whole way through the injector: who asks, what for, what that comes to, and the patch that leads there.

Pure: a pod's document, the settings and what the gateway's routes need, in; a decision, out. The same pod, once
patched, needs no further patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llmroute_contract.pods import CLIENT_ANNOTATION, GATEWAY_CONTAINER, GATEWAY_LABEL
from llmroute_operator.injector.annotations import Wishes, WrongAnnotations, read_wishes, shown, unknown_annotations
from llmroute_operator.injector.asked import Asked, CannotHave, PassedOver, who_asks
from llmroute_operator.injector.environment import (
    AppVariables,
    NoKey,
    app_variables,
    client_key,
    unknown_containers,
    variables_for,
    warnings_of,
)
from llmroute_operator.injector.gateway_container import gateway_container
from llmroute_operator.injector.healing import taken_volume_names, with_gateway, with_volumes
from llmroute_operator.injector.needs import GatewayNeeds
from llmroute_operator.injector.patch import Operation, difference
from llmroute_operator.injector.pod import Container, Document, NotAPod, Pod, read_pod
from llmroute_operator.injector.ports import collisions, ports_of
from llmroute_operator.injector.resources import resources_of
from llmroute_operator.injector.settings import InjectorSettings
from llmroute_operator.injector.volumes import volumes


@dataclass(frozen=True, slots=True)
class Allowed:
    """`operations` is empty where the pod stays as it is."""

    operations: Sequence[Operation] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Denied:
    messages: Sequence[str]
    """Each says what is wrong with the pod, and what to do."""


Decision = Allowed | Denied


@dataclass(frozen=True, slots=True)
class Wanted:
    """A pod that is to have a gateway."""

    pod: Pod
    wishes: Wishes
    warnings: Sequence[str]


def read(document: Document) -> Wanted | Decision:
    """What a pod asks for; where it asks for nothing that may be had, the decision already."""
    try:
        pod = read_pod(document)
    except NotAPod as error:
        return Denied([f"this is no pod that the injector can read: {error}"])
    match who_asks(pod):
        case CannotHave(message):
            return Denied([message])
        case PassedOver(warning):
            return Allowed(warnings=[warning] if warning is not None else [])
        case Asked():
            pass
    match read_wishes(pod.annotations):
        case WrongAnnotations(messages):
            return Denied(messages)
        case Wishes() as wishes:
            unknown = [
                f"annotation {name} is not known; is it mistyped?" for name in unknown_annotations(pod.annotations)
            ]
            return Wanted(pod, wishes, unknown)


def inject(document: Document, wanted: Wanted, settings: InjectorSettings, needs: GatewayNeeds) -> Decision:
    """`document` is the one that `wanted` was read from."""
    pod, wishes = wanted.pod, wanted.wishes
    ports = ports_of(wishes, settings)
    key = client_key(wishes, needs)
    wrong = [
        *collisions(pod, ports),
        *unknown_containers(pod, wishes),
        *_wrong_label(pod, wishes),
        *_taken_names(document, pod),
        *([key.message] if isinstance(key, NoKey) else []),
    ]
    if wrong or isinstance(key, NoKey):
        return Denied(wrong)
    secrets = needs.secrets | ({settings.shared_state_secret} if settings.shared_state_secret is not None else set())
    container = gateway_container(pod, wishes, settings, ports, secrets, resources_of(pod, wishes, settings))
    variables = app_variables(wishes, settings, ports, key)
    after = _with(document, wishes, container, volumes(wishes.gateway, secrets), variables, pod)
    told = [*wanted.warnings, *warnings_of(pod.every_container, variables)]
    if key is None:
        told.append(
            f"the routes of gateway {wishes.gateway!r} want client keys and no annotation {CLIENT_ANNOTATION} "
            "names the pod's client: the app has to bring a key"
        )
    return Allowed(difference(document, after), told)


def _with(
    document: Document,
    wishes: Wishes,
    container: Document,
    gateway_volumes: Sequence[Document],
    variables: AppVariables,
    pod: Pod,
) -> Document:
    metadata, spec = document.get("metadata", {}), document["spec"]
    init_containers = _with_variables(spec.get("initContainers") or [], pod.spec.init_containers or [], variables)
    return {
        **document,
        "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), GATEWAY_LABEL: wishes.gateway}},
        "spec": {
            **spec,
            "containers": _with_variables(spec["containers"], pod.spec.containers, variables),
            "initContainers": with_gateway(init_containers, container),
            "volumes": with_volumes(spec.get("volumes") or [], gateway_volumes),
        },
    }


def _with_variables(
    documents: Sequence[Document], containers: Sequence[Container], variables: AppVariables
) -> list[Document]:
    """New ones stand first, so that the container's own may refer to them."""
    made: list[Document] = []
    for document, container in zip(documents, containers, strict=True):
        missing = variables_for(container, variables)
        made.append({**document, "env": [*missing, *(document.get("env") or [])]} if missing else document)
    return made


def _wrong_label(pod: Pod, wishes: Wishes) -> list[str]:
    label = pod.labels.get(GATEWAY_LABEL)
    if label is None or label == wishes.gateway:
        return []
    return [
        f"label {GATEWAY_LABEL} is {shown(label)}, but the pod's gateway is {wishes.gateway!r}: the injector "
        "writes the label; choose a gateway by the annotation of that name"
    ]


def _taken_names(document: Document, pod: Pod) -> list[str]:
    has_gateway = any(container.name == GATEWAY_CONTAINER for container in pod.spec.init_containers or ())
    wrong = [
        f"container {container.name!r} has the name of the gateway's: rename it"
        for container in pod.spec.containers
        if container.name == GATEWAY_CONTAINER
    ]
    if not has_gateway:
        wrong += [
            f"volume {name!r} has a name that is kept for the gateway's: rename it"
            for name in taken_volume_names(document["spec"].get("volumes") or [])
        ]
    return wrong
