"""`python -m tests.cluster`: makes sure that the control plane's programs are there, before the tests begin."""

import os
import sys

from tests.cluster.binaries import ensure
from tests.cluster.go_build import Unavailable


def main() -> int:
    if os.environ.get("LLMROUTE_TEST_KUBECONFIG"):
        return 0
    try:
        ensure()
    except Unavailable as reason:
        print(f"SKIPPING ALL TESTS THAT NEED A CONTROL PLANE: {reason}", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
