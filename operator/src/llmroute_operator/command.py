"""The `llmroute-operator` command: `controller` and `injector`, each in its Deployment, or beside a kubeconfig. Parses
arguments and hands over."""

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from llmroute_contract.compiled import CompiledSharedState
from llmroute_contract.scalars import LABEL_PATTERN, SUBDOMAIN_PATTERN
from llmroute_contract.shared_state import SECRET_ENTRIES, parse_shared_state_url

if TYPE_CHECKING:
    from llmroute_operator.controller.settings import CertificateSettings

OWN_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    sys.exit(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmroute-operator", description="Brings LLMRoutes into pods.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    controller = commands.add_parser("controller", help="compile LLMRoutes into ConfigMaps and tell their status")
    controller.add_argument(
        "--namespace",
        action="append",
        default=[],
        type=_namespace,
        metavar="NS",
        help="look after this namespace; repeatable (default: all)",
    )
    controller.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: the pod's service account")
    controller.add_argument(
        "--health-host",
        default="0.0.0.0",  # noqa: S104 - kubelet probes the pod's address
        help="address of /healthz and /metrics (%(default)s)",
    )
    controller.add_argument("--health-port", type=_port, default=8080, help="their port (%(default)s; 0: any free one)")
    controller.add_argument(
        "--relist-seconds", type=_positive, default=300.0, help="how often all is read anew (%(default)s)"
    )
    controller.add_argument(
        "--remove-empty-after-seconds",
        type=_not_negative,
        default=300.0,
        help="how long the emptied ConfigMap of a gateway without routes stays (%(default)s)",
    )
    controller.add_argument(
        "--shared-state-url",
        type=_shared_state_url,
        metavar="URL",
        help="Valkey or Redis, where gateways count limits of scope Gateway together: rediss://host:6379/0",
    )
    controller.add_argument(
        "--shared-state-secret",
        type=_secret,
        metavar="NAME",
        help=f"a Secret in each namespace with gateways, for it: {', '.join(SECRET_ENTRIES)}, all optional",
    )
    controller.add_argument(
        "--touch-pods-per-second",
        type=_not_negative,
        default=50.0,
        help="after a change, annotate so many pods a second, which brings it to them within a second instead of "
        "kubelet's minute (%(default)s; 0: none)",
    )
    _certificate_options(controller)
    controller.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    controller.set_defaults(run=_controller)
    _add_injector(commands.add_parser("injector", help="the admission webhook that gives pods their gateway"))
    return parser


def _certificate_options(controller: argparse.ArgumentParser) -> None:
    controller.add_argument(
        "--certificates",
        choices=["self", "cert-manager", "none"],
        default="none",
        help="self: make and renew the certificate of the injector's webhook; cert-manager: serve what it makes; none: "
        "leave it to you (%(default)s)",
    )
    controller.add_argument(
        "--injector-namespace", type=_namespace, metavar="NS", help="where the injector runs (default: this pod's own)"
    )
    for name, default, text in (
        ("lifetime", 90 * 86400.0, "for how long a certificate is good; it is renewed when a third is left"),
        ("publish", 30.0, "from publishing an authority to serving its certificate: API servers learn of it meanwhile"),
        ("retire", 3600.0, "from serving another certificate to dropping the old authority: injectors take it up"),
    ):
        controller.add_argument(
            f"--certificate-{name}-seconds", type=_positive, default=default, help=f"{text} (%(default).0f)"
        )


def _add_injector(injector: argparse.ArgumentParser) -> None:
    injector.add_argument("--tls-cert", type=Path, required=True, metavar="FILE", help="PEM; read again as it changes")
    injector.add_argument("--tls-key", type=Path, required=True, metavar="FILE", help="PEM; read again as it changes")
    injector.add_argument(
        "--settings",
        type=Path,
        required=True,
        metavar="FILE",
        help="YAML, for every gateway that is injected (docs/injection.md); read again as it changes",
    )
    injector.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: the pod's service account")
    all_addresses = "0.0.0.0"  # noqa: S104 - the API server and kubelet call the pod's address
    injector.add_argument("--host", default=all_addresses, help="address of the webhook (%(default)s)")
    injector.add_argument("--port", type=_port, default=8443, help="its port (%(default)s; 0: any free one)")
    injector.add_argument(
        "--health-host", default=all_addresses, help="address of /healthz, /readyz and /metrics (%(default)s)"
    )
    injector.add_argument("--health-port", type=_port, default=8080, help="their port (%(default)s; 0: any free one)")
    injector.add_argument(
        "--drain-seconds",
        type=_not_negative,
        default=5.0,
        help="serve on for so long after SIGTERM, not ready, until no one sends anything here (%(default)s)",
    )
    injector.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    injector.set_defaults(run=_injector)


def _injector(options: argparse.Namespace) -> int:
    from llmroute_operator import log
    from llmroute_operator.controller.settings import CannotStart
    from llmroute_operator.injector.options import Options
    from llmroute_operator.injector.run import run

    log.configure(options.log_level)
    chosen = Options(
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        settings=options.settings,
        kubeconfig=options.kubeconfig,
        host=options.host,
        port=options.port,
        health_host=options.health_host,
        health_port=options.health_port,
        drain_seconds=options.drain_seconds,
    )
    try:
        asyncio.run(run(chosen))
    except CannotStart as error:
        print(f"llmroute-operator: {error}", file=sys.stderr)  # noqa: T201 - a command's own message
        return 2
    return 0


def _controller(options: argparse.Namespace) -> int:
    from llmroute_operator import log
    from llmroute_operator.controller.run import run
    from llmroute_operator.controller.settings import CannotStart, Settings

    if options.shared_state_secret is not None and options.shared_state_url is None:
        print("llmroute-operator: --shared-state-secret needs --shared-state-url", file=sys.stderr)  # noqa: T201
        return 2
    log.configure(options.log_level)
    try:
        settings = Settings(
            namespaces=tuple(dict.fromkeys(options.namespace)),
            kubeconfig=options.kubeconfig,
            health_host=options.health_host,
            health_port=options.health_port,
            relist_seconds=options.relist_seconds,
            remove_empty_after=timedelta(seconds=options.remove_empty_after_seconds),
            shared_state=CompiledSharedState(options.shared_state_url, options.shared_state_secret)
            if options.shared_state_url is not None
            else None,
            touches_per_second=options.touch_pods_per_second,
            certificates=_certificates(options),
        )
        asyncio.run(run(settings))
    except CannotStart as error:
        print(f"llmroute-operator: {error}", file=sys.stderr)  # noqa: T201 - a command's own message
        return 2
    return 0


def _certificates(options: argparse.Namespace) -> "CertificateSettings | None":
    from llmroute_operator.controller.settings import CertificateSettings

    if options.certificates == "none":
        return None
    namespace = options.injector_namespace or _own_namespace()
    return CertificateSettings(
        namespace,
        timedelta(seconds=options.certificate_lifetime_seconds),
        timedelta(seconds=options.certificate_publish_seconds),
        timedelta(seconds=options.certificate_retire_seconds),
        made_elsewhere=options.certificates == "cert-manager",
    )


def _own_namespace() -> str:
    """The pod's. Raises CannotStart outside of one."""
    from llmroute_operator.controller.settings import CannotStart

    try:
        return OWN_NAMESPACE_FILE.read_text().strip()
    except OSError:
        raise CannotStart(f"not in a pod ({OWN_NAMESPACE_FILE} is not there): give --injector-namespace") from None


def _namespace(text: str) -> str:
    if not re.fullmatch(LABEL_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a namespace's name")
    return text


def _secret(text: str) -> str:
    if not re.fullmatch(SUBDOMAIN_PATTERN, text) or len(text) > 253:
        raise argparse.ArgumentTypeError("is not a Secret's name")
    return text


def _shared_state_url(text: str) -> str:
    try:
        parse_shared_state_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _positive(text: str) -> float:
    seconds = _not_negative(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def _not_negative(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:  # nor nan
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds
