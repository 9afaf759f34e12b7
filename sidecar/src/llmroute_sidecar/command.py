"""The `llmroute` command: `serve` in a pod, `run`, `validate` and `compile` on a laptop. Parses arguments and hands
over.

Exit codes: 0 good, 1 what was asked for is not good (`validate`, `compile`), 2 the call itself is wrong (arguments,
`GATEWAY_*`, a port that is taken).
"""

import argparse
import asyncio
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # each command imports what it needs only: `validate` should not pay for the server
    from llmroute_contract.compiled import CompiledSharedState
    from llmroute_sidecar.config.source import Source
    from llmroute_sidecar.process import Observer

DEFAULT_SECRETS_DIR = "/var/run/llmroute/secrets"
LITELLM_PYTHON = "LLMROUTE_LITELLM_PYTHON"
POD_NAME = "POD_NAME"
MIB = 1024 * 1024
"""The pod's own name, from the injector: by it a gateway knows its share of limits over all pods."""
SHARED_STATE_URL = "GATEWAY_SHARED_STATE_URL"
SHARED_STATE_SECRET = "GATEWAY_SHARED_STATE_SECRET"  # noqa: S105 - a variable's name


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    sys.exit(command(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmroute", description="The LLM gateway of a pod.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve from a directory of compiled files, or from GATEWAY_* variables")
    serve.add_argument("--config-dir", type=Path, help="the mounted ConfigMap; without it GATEWAY_* variables are read")
    serve.add_argument(
        "--secrets-dir",
        type=Path,
        default=Path(DEFAULT_SECRETS_DIR),
        help="mounted Secrets, as SECRET/ENTRY (%(default)s)",
    )
    _add_ports(serve)
    _add_otlp(serve)
    _add_litellm(serve)
    _add_shared_state(serve)
    _add_log_level(serve, "info")
    serve.set_defaults(command=_serve)

    ready = commands.add_parser("ready", help="wait until the gateway at a port of this machine is ready")
    ready.add_argument("--port", type=_port, default=8790, help="its data port (%(default)s)")
    ready.add_argument("--within", type=float, default=0.0, metavar="SECONDS", help="wait so long (%(default)s)")
    ready.set_defaults(command=_ready)

    run = commands.add_parser("run", help="serve LLMRoutes from YAML files, reloading when they are saved")
    _add_files(run)
    _add_choice(run)
    run.add_argument("--secrets-dir", type=Path, help="where Secrets are that stand in no file, as SECRET/ENTRY")
    _add_ports(run)
    _add_otlp(run)
    _add_litellm(run)
    _add_shared_state(run)
    # What else `serve` logs is told on stderr, in words.
    _add_log_level(run, "error")
    run.set_defaults(command=_run)

    validate = commands.add_parser("validate", help="check LLMRoutes in YAML files")
    _add_files(validate)
    validate.add_argument(
        "-o", "--output", choices=["text", "json"], default="text", help="for people or for programs (%(default)s)"
    )
    validate.set_defaults(command=_validate)

    compile_ = commands.add_parser("compile", help="print the ConfigMaps that LLMRoutes compile to")
    _add_files(compile_)
    _add_choice(compile_)
    compile_.add_argument(
        "-o", "--output-dir", type=Path, metavar="DIR", help="write one gateway's files there, for serve --config-dir"
    )
    compile_.set_defaults(command=_compile)

    status = commands.add_parser(
        "status",
        help="show the gateways of a cluster: pods, revisions, breakers, errors (also: kubectl llmroute status)",
        description="Shows the gateways of a cluster as their pods tell it. Uses kubectl and your own rights: to list "
        "pods and llmroutes, and to get pods/proxy. Ends with 1 where a pod does not serve the newest revision.",
    )
    _add_cluster(status)
    status.set_defaults(command=_status)
    return parser


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gateway", nargs="?", help="this gateway alone")
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("-n", "--namespace", help="default: the one of kubectl's context")
    scope.add_argument("-A", "--all-namespaces", action="store_true")
    parser.add_argument("--context", help="of kubectl's configuration")
    parser.add_argument("--kubeconfig", metavar="FILE", help="default: kubectl's own")
    parser.add_argument("--kubectl", default="kubectl", metavar="PROGRAM", help="the kubectl to use (%(default)s)")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="default: %(default)s")


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        help="a YAML file or a folder of them (to validate and compile also -, stdin); repeatable",
    )
    parser.add_argument("--namespace", help="of routes that name none; where the files have several, the one meant")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gateway", help="which gateway, where the files have several")


def _add_ports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address of the data port (%(default)s)")
    parser.add_argument("--port", type=_port, default=8790, help="data port (%(default)s; 0: any free one)")
    parser.add_argument(
        "--admin-host",
        action="append",
        metavar="ADMIN_HOST",
        help="address of the admin port; repeatable, for the same port on several (127.0.0.1)",
    )
    parser.add_argument("--admin-port", type=_port, default=8791, help="admin port (%(default)s; 0: any free one)")
    parser.add_argument(
        "--allow-host",
        action="append",
        type=_host_name,
        default=[],
        metavar="NAME",
        help="answer to this name on loopback addresses too, where else only localhost and addresses are answered to; "
        "repeatable",
    )
    parser.add_argument(
        "--max-body",
        type=_mebibytes,
        default=32,
        metavar="MIB",
        help="a request's body may have so much (%(default)s MiB)",
    )
    parser.add_argument(
        "--max-bodies",
        type=_mebibytes,
        default=128,
        metavar="MIB",
        help="the bodies of all calls under way may have so much; who comes with more is told 503 (%(default)s MiB)",
    )
    parser.add_argument(
        "--grace", type=float, default=30.0, help="seconds for calls under way at the end (%(default)s)"
    )


def _add_litellm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--litellm-python",
        type=Path,
        metavar="PATH",
        default=os.environ.get(LITELLM_PYTHON) or None,
        help="an interpreter whose environment has litellm, for litellm:// upstreams; without one they are unavailable "
        f"(${LITELLM_PYTHON})",
    )
    parser.add_argument(
        "--litellm-idle",
        type=float,
        metavar="SECONDS",
        default=900.0,
        help="end the process of a litellm:// upstream that was not called for so long (%(default)s; 0: never)",
    )


def _add_shared_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shared-state-url",
        metavar="URL",
        default=os.environ.get(SHARED_STATE_URL) or None,
        help="Valkey or Redis, where this gateway's limits of scope Gateway are counted together with its other "
        f"processes': rediss://host:6379/0; counts before what the configuration says (${SHARED_STATE_URL})",
    )
    parser.add_argument(
        "--shared-state-secret",
        metavar="NAME",
        default=os.environ.get(SHARED_STATE_SECRET) or None,
        help="the Secret in --secrets-dir that goes with it: username, password, ca.crt, tls.crt, tls.key, all "
        f"optional (${SHARED_STATE_SECRET})",
    )


def _add_log_level(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--log-level",
        default=default,
        choices=["debug", "info", "warning", "error"],
        help="of events on stdout, which also has a line for each request (%(default)s)",
    )


def _add_otlp(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--otlp-endpoint",
        metavar="URL",
        help="export traces to this collector (OTLP over HTTP, port 4318 most often); OTEL_* variables say more",
    )


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of a host, without scheme and port")
    return text


def _mebibytes(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of MiB from 1 to 4096")
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    from llmroute_sidecar.config.directory import DirectorySource
    from llmroute_sidecar.config.source import SourceError
    from llmroute_sidecar.process import Observer

    if options.config_dir is not None:
        return _start(DirectorySource(options.config_dir, options.secrets_dir), options, Observer())
    from llmroute_sidecar.config.environment import EnvironmentSource, misspelt  # what compiles routes is 8 MiB

    for told in misspelt(os.environ):
        sys.stderr.write(f"llmroute: {told}\n")
    try:
        return _start(EnvironmentSource(os.environ), options, Observer())
    except SourceError as error:
        return _wrong(str(error))


def _ready(options: argparse.Namespace) -> int:
    from llmroute_sidecar.readiness import wait_until_ready

    if wait_until_ready(options.port, options.within):
        return 0
    sys.stderr.write(f"llmroute: no gateway at 127.0.0.1:{options.port} is ready\n")
    return 1


def _run(options: argparse.Namespace) -> int:
    from llmroute_sidecar.config.documents import STDIN
    from llmroute_sidecar.config.manifests import ManifestSource
    from llmroute_sidecar.narration import Narrator

    for path in options.file:
        if path == STDIN:
            return _wrong("run follows files that are saved, which stdin is not; give a file or a folder")
        if not path.exists():  # a slip of the hand; one that vanishes later is waited for
            return _wrong(f"{path}: there is no such file or folder")
    if options.litellm_python is not None and not os.access(options.litellm_python, os.X_OK):
        return _wrong(f"--litellm-python {options.litellm_python}: there is no such program")
    source = ManifestSource(options.file, options.gateway, options.namespace, options.secrets_dir)
    has_litellm = options.litellm_python is not None
    narrator = Narrator(sys.stderr, lambda: source.given_secrets, has_litellm=has_litellm, notes=lambda: source.notes)
    return _start(source, options, narrator)


def _start(source: "Source", options: argparse.Namespace, observer: "Observer") -> int:
    import uvloop

    from llmroute_sidecar import process
    from llmroute_sidecar.config.reload import Reloader
    from llmroute_sidecar.server.head import ServerLimits
    from llmroute_sidecar.telemetry import log
    from llmroute_sidecar.telemetry.otlp_settings import read_settings
    from llmroute_sidecar.upstream.worker import WorkerSettings
    from llmroute_sidecar.version import VERSION

    writer = log.configure(options.log_level)
    try:
        otlp = read_settings(os.environ, options.otlp_endpoint, VERSION, logging.getLogger("llmroute.otlp").warning)
    except ValueError as error:
        return _wrong(f"--otlp-endpoint {error}")
    try:
        shared_state = _shared_state(options)
    except ValueError as error:
        return _wrong(f"--shared-state-url {error}")
    settings = process.Settings(
        options.host,
        options.port,
        tuple(options.admin_host or process.LOOPBACK),
        options.admin_port,
        options.grace,
        ServerLimits(body=options.max_body * MIB, bodies=max(options.max_body, options.max_bodies) * MIB),
        litellm=WorkerSettings(options.litellm_python, options.litellm_idle),
        otlp=otlp,
        allow_hosts=tuple(options.allow_host),
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            reloader = Reloader(source, pod=os.environ.get(POD_NAME, ""), shared_state=shared_state)
            runner.run(process.run(reloader, settings, writer, observer))
    except process.CannotListen as error:
        return _wrong(str(error))
    finally:
        logging.shutdown()
    return 0


def _shared_state(options: argparse.Namespace) -> "CompiledSharedState | None":
    """Raises ValueError where the address is none."""
    from llmroute_contract.compiled import CompiledSharedState
    from llmroute_contract.shared_state import parse_shared_state_url

    if options.shared_state_url is None:
        return None
    parse_shared_state_url(options.shared_state_url)
    return CompiledSharedState(options.shared_state_url, options.shared_state_secret)


def _validate(options: argparse.Namespace) -> int:
    from llmroute_sidecar.config.validate import run_validate

    return run_validate(options.file, options.output, sys.stdout, options.namespace)


def _compile(options: argparse.Namespace) -> int:
    from llmroute_sidecar.config.validate import run_compile

    return run_compile(options.file, options.gateway, options.namespace, options.output_dir, sys.stdout, sys.stderr)


def _status(options: argparse.Namespace) -> int:
    from llmroute_sidecar.status.gather import gather
    from llmroute_sidecar.status.kubectl import Kubectl, KubectlFailed
    from llmroute_sidecar.status.show import as_json, as_text

    given = (("--context", options.context), ("--kubeconfig", options.kubeconfig))
    kubectl = Kubectl(options.kubectl, [f"{name}={value}" for name, value in given if value])
    scope = ["-A"] if options.all_namespaces else ["-n", options.namespace] if options.namespace else []
    try:
        gateways = gather(kubectl, scope, options.gateway)
    except KubectlFailed as error:
        return _wrong(str(error))
    if options.output == "text" and not gateways:
        return _wrong("no gateway is here: no LLMRoute, and no pod with a gateway; -A looks into every namespace")
    print(as_json(gateways) if options.output == "json" else as_text(gateways))  # noqa: T201 - a command's answer
    return 0 if all(one.synced == len(one.pods) for one in gateways) else 1


def _wrong(message: str) -> int:
    print(f"llmroute: {message}", file=sys.stderr)  # noqa: T201 - a command's own message
    return 2
