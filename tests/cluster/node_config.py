"""What a real node's programs are told: certificates, tokens, configuration files, command lines.

Values in, files out; running them is node.py's and node_init.py's. All addresses are within the node's own network
namespace, so that any number of nodes can be on one machine.
"""

import json
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.control_plane import write_kubeconfig
from tests.cluster.images import PAUSE
from tests.cluster.node_binaries import CNI_PLUGINS, NodeBinaries

NODE = "node-1"
NODE_ADDRESS = "10.79.0.2"
POD_RANGE = "10.78.0.0/24"
SERVICE_RANGE = "10.77.0.0/24"
API_SERVICE = "10.77.0.1"
API_PORT = 6443
# What kubelet writes for the whole machine (its --protect-kernel-defaults has the list)
_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# Both ends of one cable: an address that is up without any device of the machine's (many kernels have no dummy device)
_NETWORK = (
    "link set lo up",
    "link add node0 type veth peer name node1",
    f"addr add {NODE_ADDRESS}/24 dev node0",
    "link set node0 up",
    "link set node1 up",
    "route add default dev node0",
)


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """The places in a node's folder that others need to know."""

    folder: Path
    admin_token: str

    @property
    def authority(self) -> Path:
        return self.folder / "pki" / "ca.crt"

    @property
    def containerd(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def api_ready(self) -> Path:
        """Made once the API server is ready; what needs it starts then."""
        return self.folder / "api-ready"

    @property
    def spec(self) -> Path:
        return self.folder / "node.json"

    def log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"


def write_node(folder: Path, cgroup: str, binaries: NodeBinaries) -> NodeFiles:
    """Everything that the programs read, in `folder`."""
    for name in ("pki", "log", "cni", "private"):
        (folder / name).mkdir(parents=True)
    _certificates(folder / "pki")
    users = {
        "admin": ("llmroute-test-admin", "system:masters"),
        "controller-manager": ("system:kube-controller-manager", ""),
        "scheduler": ("system:kube-scheduler", ""),
        "proxy": ("system:kube-proxy", ""),
        "kubelet": (f"system:node:{NODE}", "system:nodes"),
    }
    tokens = {name: secrets.token_hex(16) for name in users}
    token_file = folder / "tokens.csv"
    token_file.touch(mode=0o600)
    token_file.write_text("".join(f"{tokens[name]},{user},{name},{group}\n" for name, (user, group) in users.items()))
    files = NodeFiles(folder, tokens["admin"])
    for name, token in tokens.items():
        if name != "admin":
            url = f"https://{NODE_ADDRESS}:{API_PORT}"
            write_kubeconfig(folder / f"{name}.kubeconfig", url, files.authority, token)
    (folder / "containerd.toml").write_text(_containerd(files, binaries))
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(_cni(folder)))
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(files, cgroup)))
    (folder / "proxy.yaml").write_text(yaml.safe_dump(_proxy(folder)))
    spec = {
        "folder": str(folder),
        "sysctls": _SYSCTLS,
        "network": [command.split() for command in _NETWORK],
        "programs": _programs(files, binaries),
    }
    files.spec.write_text(json.dumps(spec))
    return files


def _certificates(folder: Path) -> None:
    """One authority; the API server's certificate, and the one that it shows kubelet; the service accounts' key."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=llmroute-test", "-days", "2")

    def issue(name: str, subject: str, extensions: str) -> None:
        (folder / f"{name}.ext").write_text(extensions)
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext", "-days", "2")
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt")

    addresses = ",".join(f"IP:{address}" for address in (NODE_ADDRESS, API_SERVICE, "127.0.0.1"))
    names = ",".join(f"DNS:kubernetes{rest}" for rest in ("", ".default", ".default.svc"))
    issue("api", "/CN=kube-apiserver", f"subjectAltName={addresses},{names}\nextendedKeyUsage=serverAuth\n")
    issue("to-kubelet", "/O=system:masters/CN=kube-apiserver", "extendedKeyUsage=clientAuth\n")
    openssl("genrsa", "-out", "service-accounts.key", "2048")


def _containerd(files: NodeFiles, binaries: NodeBinaries) -> str:
    return f"""\
version = 3
root = "{files.folder}/containerd/root"
state = "{files.folder}/containerd/state"
[grpc]
  address = "{files.containerd}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  # without CAP_SYS_RESOURCE no score may be lowered, and every sandbox would fail for it
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{CNI_PLUGINS}"]
    conf_dir = "{files.folder}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "{binaries.runc}"
      SystemdCgroup = false
"""


def _cni(folder: Path) -> Any:
    """Routed, not bridged: every packet passes the node's own rules, so that Services work without br_netfilter."""
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "cni-data"),
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": False, "ipam": addresses}]}


def _kubelet(files: NodeFiles, cgroup: str) -> Any:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "containerRuntimeEndpoint": f"unix://{files.containerd}",
        "address": NODE_ADDRESS,
        "healthzBindAddress": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(files.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "failSwapOn": False,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": str(files.folder / "pod-logs"),
        "volumePluginDir": str(files.folder / "volume-plugins"),
    }


def _proxy(folder: Path) -> Any:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(folder / "proxy.kubeconfig")},
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": NODE,
        "bindAddress": NODE_ADDRESS,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _programs(files: NodeFiles, binaries: NodeBinaries) -> Sequence[Any]:
    """Each with what must be there before it starts."""
    folder, pki = files.folder, files.folder / "pki"

    def program(name: str, path: Path, *arguments: str, after: Sequence[Path] = ()) -> Any:
        return {"name": name, "command": [str(path), *arguments], "after": [str(one) for one in after]}

    def component(name: str, kubeconfig: str, *arguments: str) -> Any:
        path = folder / f"{kubeconfig}.kubeconfig"
        return program(
            name,
            binaries.kubernetes / name,
            *(f"--{kind}={path}" for kind in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")),
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--cert-dir={folder / 'serving' / name}",
            *arguments,
            after=[files.api_ready],
        )

    return [
        program(
            "etcd",
            binaries.control_plane.etcd,
            f"--data-dir={folder / 'etcd'}",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--log-level=warn",
            "--unsafe-no-fsync",
        ),
        program(
            "kube-apiserver",
            binaries.control_plane.kube_apiserver,
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=0.0.0.0",
            f"--advertise-address={NODE_ADDRESS}",
            f"--secure-port={API_PORT}",
            f"--tls-cert-file={pki / 'api.crt'}",
            f"--tls-private-key-file={pki / 'api.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'to-kubelet.crt'}",
            f"--kubelet-client-key={pki / 'to-kubelet.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-account-key-file={pki / 'service-accounts.key'}",
            f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--allow-privileged",
            "--profiling=false",
        ),
        program("containerd", binaries.containerd / "containerd", "--config", str(folder / "containerd.toml")),
        component(
            "kube-controller-manager",
            "controller-manager",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--service-account-private-key-file={pki / 'service-accounts.key'}",
            "--use-service-account-credentials=true",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ),
        component("kube-scheduler", "scheduler"),
        program(
            "kubelet",
            binaries.kubernetes / "kubelet",
            f"--config={folder / 'kubelet.yaml'}",
            f"--kubeconfig={folder / 'kubelet.kubeconfig'}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_ADDRESS}",
            f"--root-dir={folder / 'kubelet'}",
            f"--cert-dir={folder / 'serving' / 'kubelet'}",
            after=[files.api_ready, files.containerd],
        ),
        program(
            "kube-proxy",
            binaries.kubernetes / "kube-proxy",
            f"--config={folder / 'proxy.yaml'}",
            after=[files.api_ready],
        ),
    ]
