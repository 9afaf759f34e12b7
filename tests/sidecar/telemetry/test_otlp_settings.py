"""OpenTelemetry's variables mean what OpenTelemetry says; what makes no sense is named, and never quoted."""

from pathlib import Path

import pytest

from llmroute_sidecar.telemetry.otlp_settings import OtlpSettings, read_settings

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
COLLECTOR = {ENDPOINT: "http://collector:4318"}
SECRET = "canary-secret"


def read(environment: dict[str, str], endpoint: str | None = None) -> tuple[OtlpSettings | None, list[str]]:
    warnings: list[str] = []
    return read_settings(environment, endpoint, "1.2.3", warnings.append), warnings


def settings(environment: dict[str, str], endpoint: str | None = None) -> OtlpSettings:
    found, warnings = read(environment, endpoint)
    assert found is not None
    assert warnings == []
    return found


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: " "},
        {"OTEL_SERVICE_NAME": "chat"},
        {**COLLECTOR, "OTEL_SDK_DISABLED": "true"},
        {**COLLECTOR, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_no_traces_are_the_default(environment: dict[str, str]) -> None:
    assert read(environment) == (None, [])


@pytest.mark.parametrize(
    ("environment", "option", "url"),
    [
        ({ENDPOINT: "http://c:4318"}, None, "http://c:4318/v1/traces"),
        ({ENDPOINT: "http://c:4318/"}, None, "http://c:4318/v1/traces"),
        ({ENDPOINT: "https://c/prefix"}, None, "https://c/prefix/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/own/path"}, None, "http://c:4318/own/path"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, None, "http://c:4318/"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t", **COLLECTOR}, None, "http://c/t"),
        ({}, "http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        (COLLECTOR, "http://other:4318", "http://other:4318/v1/traces"),
        ({"OTEL_SDK_DISABLED": "true"}, "http://c:4318", "http://c:4318/v1/traces"),
    ],
)
def test_where_spans_go(environment: dict[str, str], option: str | None, url: str) -> None:
    found = settings(environment, option)
    assert f"{found.url.scheme}://{found.url.authority}{found.path}" == url
    assert found.url.path == ""


@pytest.mark.parametrize("option", ["", "collector:4318", "grpc://c:4317", "mock://local", "http://", "http://u:p@c"])
def test_an_option_that_is_no_url_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match="must"):
        read({}, option)


def test_what_is_not_said_has_opentelemetrys_defaults() -> None:
    found = settings(COLLECTOR)
    assert (found.timeout, found.delay, found.queue_max, found.batch_max, found.ratio) == (10, 5, 2048, 512, 1)
    assert found.headers == ()
    assert found.tls is None
    assert found.resource["service.name"] == "llmroute"
    assert found.resource["service.version"] == "1.2.3"


def test_what_is_said_counts_and_what_is_said_of_traces_counts_more() -> None:
    found = settings(
        {
            **COLLECTOR,
            "OTEL_EXPORTER_OTLP_HEADERS": "X-One=1",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "Authorization=Bearer%20a%3Db, x-two = 2 ,",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "10",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "20",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=one,team=a%20b",
            "OTEL_SERVICE_NAME": "two",
        }
    )
    assert found.headers == (("authorization", "Bearer a=b"), ("x-two", "2"))
    assert (found.timeout, found.delay, found.queue_max, found.batch_max) == (2.5, 0.1, 10, 10)
    assert found.resource["service.name"] == "two"
    assert found.resource["team"] == "a b"


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio"),
    [
        ("", "", 1.0),
        ("", "0.25", 0.25),
        ("parentbased_traceidratio", "0", 0.0),
        ("parentbased_traceidratio", "", 1.0),
        ("parentbased_always_on", "0.25", 1.0),
        ("parentbased_always_off", "0.25", 0.0),
    ],
)
def test_the_share_of_traces_that_begin_here(sampler: str, argument: str, ratio: float) -> None:
    found = settings({**COLLECTOR, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument})
    assert found.ratio == ratio


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", f"authorization {SECRET}"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"a b={SECRET}"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"x={SECRET}%0d%0ay: z"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"x={SECRET}%ff"),
        ("OTEL_RESOURCE_ATTRIBUTES", SECRET),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", SECRET),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1e3"),
        ("OTEL_TRACES_SAMPLER", SECRET),
        ("OTEL_TRACES_SAMPLER_ARG", SECRET),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", f"/nowhere/{SECRET}.pem"),
    ],
)
def test_a_variable_without_sense_is_named_and_passed_over(name: str, value: str) -> None:
    found, warnings = read({**COLLECTOR, name: value})
    assert found is not None
    (warning,) = warnings
    assert warning.startswith(f"{name} is passed over: ")
    assert SECRET not in warning
    default = settings(COLLECTOR)
    assert (found.headers, found.timeout, found.delay, found.queue_max, found.ratio, found.tls) == (
        (default.headers, default.timeout, default.delay, default.queue_max, default.ratio, default.tls)
    )


def test_an_endpoint_without_sense_ends_tracing_not_the_gateway() -> None:
    found, warnings = read({ENDPOINT: "collector:4318"})
    assert found is None
    assert warnings == [f"{ENDPOINT} is passed over: must begin with http:// or https://"]


def test_grpc_is_not_spoken_and_said_so() -> None:
    found, warnings = read({**COLLECTOR, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert found is None
    assert "grpc" in warnings[0]
    settings({**COLLECTOR, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})  # the collector's port takes JSON too


def test_secret_headers_are_in_no_representation() -> None:
    found = settings({**COLLECTOR, "OTEL_EXPORTER_OTLP_HEADERS": f"x={SECRET}"})
    assert found.headers == (("x", SECRET),)
    assert SECRET not in repr(found)


def test_certificates_are_read_from_files(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(name)
    found = settings(
        {
            **COLLECTOR,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca"),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(tmp_path / "cert"),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(tmp_path / "key"),
        }
    )
    assert found.tls is not None
    assert (found.tls.ca, found.tls.cert, found.tls.key) == (b"ca", b"cert", b"key")
