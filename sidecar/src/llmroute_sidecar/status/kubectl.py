"""kubectl as a way to the cluster: it knows the person's configuration, contexts and logins, whatever they are.

A pod's admin port is reached through the API server (`pods/NAME:PORT/proxy`), so from wherever kubectl works. That
takes the rights to list pods and llmroutes, and to get pods/proxy.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 30.0


class KubectlFailed(Exception):
    """What kubectl said."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    program: str = "kubectl"
    flags: Sequence[str] = ()
    """`--context` and the like, as they were given."""

    def items(self, kind: str, scope: Sequence[str], selector: str = "") -> list[dict[str, Any]]:
        """`scope` is `-n NAMESPACE`, `-A`, or nothing for the context's namespace."""
        chosen = ["-l", selector] if selector else []
        found: list[dict[str, Any]] = self._json("get", kind, *scope, *chosen, "-o", "json")["items"]
        return found

    def ask_pod(self, namespace: str, name: str, port: int, path: str) -> dict[str, Any]:
        """What a pod's admin port answers at `path`."""
        answer = self._json("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy{path}")
        if not isinstance(answer, dict):
            raise KubectlFailed("its answer is not a gateway's")
        return answer

    def _json(self, *arguments: str) -> Any:
        command = [self.program, *self.flags, f"--request-timeout={SECONDS:.0f}s", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS + 5, check=False)  # noqa: S603
        except FileNotFoundError:
            raise KubectlFailed(f"there is no {self.program} on the PATH") from None
        except subprocess.TimeoutExpired:
            raise KubectlFailed(f"no answer within {SECONDS:.0f} s") from None
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise KubectlFailed(lines[-1].removeprefix("Error from server ") if lines else "kubectl failed")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise KubectlFailed("the answer is not JSON") from None
