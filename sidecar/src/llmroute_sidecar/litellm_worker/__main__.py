"""`python .../litellm_worker`: makes this folder importable under its own name, and nothing else of the gateway's.

The gateway's environment must not leak into this one, so the parent package is an empty stand-in whose only content is
this folder.
"""

import sys
import types
from pathlib import Path

folder = Path(__file__).resolve().parent
sys.path[:] = [
    entry for entry in sys.path if Path(entry).resolve() != folder
]  # its files are nobody's top-level modules
stand_in = types.ModuleType("llmroute_sidecar")
stand_in.__path__ = [str(folder.parent)]
sys.modules["llmroute_sidecar"] = stand_in

from llmroute_sidecar.litellm_worker.main import main  # noqa: E402 - only now can it be found

main()
