"""The `llmroute` command: `serve` in a pod, `run`, `validate` and `compile` on a laptop. Parses arguments and hands
over."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

DEFAULT_SECRETS_DIR = "/var/run/llmroute/secrets"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    sys.exit(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmroute", description="The LLM gateway of a pod.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve from a directory of compiled files, or from GATEWAY_* variables")
    serve.add_argument("--config-dir", type=Path, help="the mounted ConfigMap; without it GATEWAY_* variables are read")
    serve.add_argument(
        "--secrets-dir",
        type=Path,
        default=Path(DEFAULT_SECRETS_DIR),
        help="mounted Secrets, as SECRET/KEY (%(default)s)",
    )
    _add_ports(serve)
    serve.set_defaults(run=_serve)

    run = commands.add_parser("run", help="serve LLMRoutes from YAML files, reloading when they are saved")
    _add_files(run)
    run.add_argument("--secrets-dir", type=Path, help="where Secrets are that stand in no file, as SECRET/KEY")
    _add_ports(run)
    run.set_defaults(run=_run)

    validate = commands.add_parser("validate", help="check LLMRoutes in YAML files")
    _add_files(validate)
    validate.add_argument("-o", "--output", choices=["text", "json"], default="text")
    validate.set_defaults(run=_validate)

    compile_ = commands.add_parser("compile", help="print the ConfigMaps that LLMRoutes compile to")
    _add_files(compile_)
    compile_.add_argument(
        "-o", "--output-dir", type=Path, help="write one gateway's files there, for serve --config-dir"
    )
    compile_.set_defaults(run=_compile)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        help="a YAML file or folder; repeatable",
    )
    parser.add_argument("--gateway", help="which gateway, where the files have several")
    parser.add_argument("--namespace", help="which namespace, where the files have several")


def _add_ports(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address of the data port (%(default)s)")
    parser.add_argument("--port", type=_port, default=8790, help="data port (%(default)s; 0: any free one)")
    parser.add_argument("--admin-host", default="127.0.0.1", help="address of the admin port (%(default)s)")
    parser.add_argument("--admin-port", type=_port, default=8791, help="admin port (%(default)s; 0: any free one)")
    parser.add_argument(
        "--grace", type=float, default=30.0, help="seconds for calls under way at the end (%(default)s)"
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    from llmroute_sidecar.config.directory import DirectorySource
    from llmroute_sidecar.config.environment import EnvironmentSource
    from llmroute_sidecar.config.source import Source, SourceError

    source: Source
    if options.config_dir is not None:
        source = DirectorySource(options.config_dir, options.secrets_dir)
    else:
        try:
            source = EnvironmentSource(os.environ)
        except SourceError as error:
            return _wrong(str(error))
    return _start(source, options, quiet=True)


def _run(options: argparse.Namespace) -> int:
    from llmroute_sidecar.config.manifests import ManifestSource

    return _start(
        ManifestSource(options.file, options.gateway, options.namespace, options.secrets_dir), options, quiet=False
    )


def _start(source: "object", options: argparse.Namespace, *, quiet: bool) -> int:
    import uvloop

    from llmroute_sidecar import process
    from llmroute_sidecar.config.local import Narrator
    from llmroute_sidecar.config.reload import Reloader
    from llmroute_sidecar.telemetry import log

    writer = log.configure(options.log_level)
    narrator = Narrator(sys.stderr, options.file if not quiet else ())
    settings = process.Settings(options.host, options.port, options.admin_host, options.admin_port, options.grace)

    def on_listening(listening: process.Listening) -> None:
        if not quiet:
            narrator.listening(options.host, listening.port, listening.admin_port)

    def on_reload(reload: object) -> None:
        if not quiet:
            narrator.reloaded(reload)

    serving = process.run(Reloader(source), settings, writer, on_listening, on_reload)  # type: ignore[arg-type]
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serving)
    except OSError as error:
        return _wrong(f"cannot listen: {error.strerror or error}")
    finally:
        logging.shutdown()
    return 0


def _validate(options: argparse.Namespace) -> int:
    from llmroute_sidecar.config.local import validate

    return validate(options.file, options.output, sys.stdout)


def _compile(options: argparse.Namespace) -> int:
    from llmroute_sidecar.config.local import compile_files

    return compile_files(options.file, options.gateway, options.namespace, options.output_dir, sys.stdout, sys.stderr)


def _wrong(message: str) -> int:
    print(f"llmroute: {message}", file=sys.stderr)  # noqa: T201 - a command's own message
    return 2
