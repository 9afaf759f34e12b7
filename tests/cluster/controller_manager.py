"""kube-controller-manager beside a test control plane: pods are then made from templates, as in any cluster.

Only the controllers that make pods run. There is no node: the pods stay pending, and are looked at as objects. A lent
cluster has a controller manager of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.binaries import ensure_programs
from tests.cluster.control_plane import ControlPlane, start_program, stop_program

CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "job-controller",
    "cronjob-controller",
)


@contextmanager
def running_controller_manager(control_plane: ControlPlane) -> Iterator[None]:
    """Raises Unavailable where it cannot be had. That it works shows in the pods that it makes."""
    if not control_plane.is_ours:
        yield
        return
    program = "kube-controller-manager"
    process = start_program(
        [
            str(ensure_programs(program) / program),
            f"--kubeconfig={control_plane.admin_kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ],
        control_plane.folder / f"{program}.log",
    )
    try:
        yield
    finally:
        stop_program(process)
