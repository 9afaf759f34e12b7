"""Configuration directories as tests make them; volumes that swap as kubelet's do: `tests/cluster/projection.py`."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from llmroute_contract.compile import RouteSource, compile_gateway
from llmroute_contract.llmroute import parse_spec

_versions = itertools.count(1)


def compiled(**models: int) -> dict[str, bytes]:
    """The files of a gateway: `a=3` is route `a` of generation 3 with the one model `a-3`, keys in Secret `clients`."""
    sources = []
    for name, version in models.items():
        spec = parse_spec(
            {
                "auth": {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}},
                "upstreams": [{"name": "up", "url": "mock://local"}],
                "models": [{"name": f"{name}-{version}", "targets": [{"upstream": "up"}]}],
            }
        )
        assert not isinstance(spec, tuple), spec
        sources.append(RouteSource(name, spec, generation=version))
    return dict(compile_gateway("shop", "default", sources).files)


def write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Plain files, each written over in place; times move with every write, which a fast test cannot wait for."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
        moment = 10**18 + next(_versions) * 10**9
        os.utime(directory / name, ns=(moment, moment))


def clear(directory: Path) -> None:
    for path in directory.iterdir() if directory.exists() else ():
        path.unlink()
