"""Compiles the modules of the request path (mypyc), where the wheel's build is told to: HATCH_BUILD_HOOKS_ENABLE=1.

The same sources either way: without it, as in development, they are run as they stand, and beside the compiled ones
they lie in the wheel for tracebacks. Which modules are compiled is said in pyproject.toml; what that asks of them in
CONTRIBUTING.md. LLMROUTE_TYPES_FROM names the Python whose packages are looked at for types, where the one that builds
has none of them.
"""

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """A wheel for this interpreter and this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        from mypyc.build import mypycify
        from setuptools import Distribution

        source = Path(self.root) / "src"
        modules = [f"{module.replace('.', os.sep)}.py" for module in self.config["modules"]]
        made = Path(self.directory) / "compiled"
        options = [
            "--config-file=",
            "--strict",
            "--ignore-missing-imports",
            "--explicit-package-bases",
            "--no-warn-unused-ignores",
        ]
        options += [
            "--cache-dir",
            os.devnull,
            "--python-executable",
            os.environ.get("LLMROUTE_TYPES_FROM", sys.executable),
        ]
        os.environ["MYPYPATH"] = f"{source}:{Path(self.root).parent / 'contract' / 'src'}"
        before = Path.cwd()
        os.chdir(source)  # the names of files end up in tracebacks
        try:
            extensions = mypycify(
                [*options, *modules],
                opt_level=os.environ.get("LLMROUTE_OPTIMIZE", "2"),
                debug_level="0",
                multi_file=True,
                target_dir=str(made / "c"),
                group_name="llmroute_sidecar",
            )
            distribution = Distribution({"name": "llmroute", "ext_modules": extensions})
            command: Any = distribution.get_command_obj("build_ext")
            command.build_lib, command.build_temp = str(made / "lib"), str(made / "objects")
            command.parallel = len(os.sched_getaffinity(0))
            command.ensure_finalized()
            command.run()
        finally:
            os.chdir(before)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for file in sorted((made / "lib").rglob("*.so")):
            build_data["force_include"][str(file)] = str(file.relative_to(made / "lib"))
