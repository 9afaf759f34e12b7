"""Configuration directories as tests make them: compiled routes, and volumes that swap as kubelet's do."""

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


def project(volume: Path, files: Mapping[str, bytes]) -> None:
    """As kubelet's AtomicWriter: a new folder, the link `..data` renamed onto it, visible links, the old one gone."""
    volume.mkdir(parents=True, exist_ok=True)
    old = (volume / "..data").readlink() if (volume / "..data").is_symlink() else None
    folder = volume / f"..2026_11_24_{next(_versions)}"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (volume / "..data_tmp").symlink_to(folder.name)
    (volume / "..data_tmp").rename(volume / "..data")
    for name in files:
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    for visible in volume.iterdir():
        if not visible.name.startswith("..") and visible.name not in files:
            visible.unlink()
    if old is not None:
        for path in (volume / old).iterdir():
            path.unlink()
        (volume / old).rmdir()


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
