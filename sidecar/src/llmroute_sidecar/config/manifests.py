"""LLMRoute manifests as a source: a laptop's way to the same compiled files that the controller writes.

Compiles on each read, with the compiler that the controller uses; a route that is refused stays as it was last
accepted, and the others update. What cannot be laid at one route's door (no YAML, no file) fails the reading as a
whole.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from llmroute_contract import compiled as c
from llmroute_contract.compile import compile_gateway
from llmroute_sidecar.config.documents import (
    FILE_MAX_BYTES,
    UNREADABLE,
    Documents,
    GatewayId,
    read_documents,
    yaml_files,
)
from llmroute_sidecar.config.files import Contents, Unusable
from llmroute_sidecar.config.secrets import MountedSecrets, SecretValues, read_secrets, secrets_paths
from llmroute_sidecar.config.source import Reading, SourceError, TryAgain


class ManifestSource:
    """One gateway of the LLMRoutes in files. Secrets come from the files too, else from `secrets_dir`."""

    def __init__(
        self,
        paths: Sequence[Path],
        gateway: str | None = None,
        namespace: str | None = None,
        secrets_dir: Path | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`gateway` and `namespace` choose, where the files hold several; `namespace` is also that of routes without
        one.
        """
        self._paths = tuple(paths)
        self._gateway = gateway
        self._namespace = namespace
        self._secrets_dir = secrets_dir
        self._contents = Contents(FILE_MAX_BYTES, now_ns)
        self._last_accepted: dict[str, c.CompiledRoute] = {}
        self.given_secrets = SecretValues({})
        """Those that stand in the files themselves, as last read."""
        self.notes: tuple[str, ...] = ()
        """What is served and does not act as it may seem to, as last read."""

    def fingerprint(self) -> Hashable:
        files: list[Path] = []
        for path in self._paths:
            try:
                files += yaml_files(path)
            except (FileNotFoundError, Unusable):
                continue
        secrets = secrets_paths(self._secrets_dir) if self._secrets_dir is not None else ()
        return self._contents.fingerprint([*self._paths, *files, *secrets])

    def mark(self) -> Hashable:
        return None

    def read(self) -> Reading:
        documents = read_documents(self._paths, self._namespace)
        if documents.problems:
            unreadable = any(problem.reason == UNREADABLE for problem in documents.problems)
            raise (TryAgain if unreadable else SourceError)(*map(str, documents.problems))
        chosen = choose_gateway(documents, self._gateway, self._namespace)
        routes = documents.gateways()[chosen]
        compilation = compile_gateway(*chosen, [route.source(self._last_accepted.get(route.name)) for route in routes])
        problems = [
            str(route.finding(problem)) for route in routes for problem in compilation.verdicts[route.name].problems
        ]
        index = c.decode(compilation.files[c.GATEWAY_FILE], c.CompiledGateway)
        if problems and not index.routes:
            raise SourceError(*problems)
        self._last_accepted = {
            entry.name: c.decode(compilation.files[entry.file], c.CompiledRoute) for entry in index.routes
        }
        self.notes = tuple(
            str(route.note(text)) for route in routes for text in compilation.verdicts[route.name].inactive
        )
        mounted = read_secrets(self._secrets_dir) if self._secrets_dir is not None else MountedSecrets()
        self.given_secrets = SecretValues(documents.secrets_of(chosen[0]))
        secrets = SecretValues({**mounted.values, **self.given_secrets.values})
        return Reading(compilation.files, secrets, (*problems, *mounted.problems), in_trouble=mounted.in_trouble)


def choose_gateway(documents: Documents, gateway: str | None, namespace: str | None) -> GatewayId:
    """The one gateway that is meant. Raises SourceError, naming those there are."""
    found = [
        there
        for there in documents.gateways()
        if (namespace is None or there[0] == namespace) and (gateway is None or there[1] == gateway)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"gateway {name} in namespace {space}" for space, name in found)
        raise SourceError(f"there are several gateways; choose one with --gateway or --namespace: {listed}")
    if documents.routes:
        listed = ", ".join(f"gateway {name} in namespace {space}" for space, name in documents.gateways())
        raise SourceError(f"no LLMRoute is of the gateway asked for; there is {listed}")
    raise SourceError("there is no LLMRoute in these files")
