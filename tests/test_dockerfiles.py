"""The Dockerfiles of gateway and operator are read one by one, from top to bottom; here they are held alike.

(One file for both would need a target for each, since ENTRYPOINT and CMD know no build arguments.)
"""

import re

from tests.cluster.control_plane import REPOSITORY

OWN = ("ENTRYPOINT", "CMD", "ARG BUILD_BASE")
MAKING_WHEELS = re.compile(r"^RUN .*?(?=/build/bin/pip --python \S+ install .* wheels/)")
OWN_LABELS = re.compile(r'org\.opencontainers\.image\.(title|description)="[^"]*"')


def instructions(name: str) -> list[str]:
    """Without comments, and without what each has for itself: how wheels are made, what is run, how it is called."""
    text = (REPOSITORY / "images" / name / "Dockerfile").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [
        MAKING_WHEELS.sub("RUN ", OWN_LABELS.sub("", line))
        for line in joined.splitlines()
        if line and not line.startswith(OWN)
    ]


def test_gateway_and_operator_differ_in_names_and_in_what_is_compiled() -> None:
    renamed = {"${BUILD_BASE}": "${BASE}", "sidecar": "operator", "gateway": "operator"}
    gateway = "\n".join(instructions("gateway"))
    for name, other in renamed.items():
        gateway = gateway.replace(name, other)
    assert gateway.splitlines() == instructions("operator")
