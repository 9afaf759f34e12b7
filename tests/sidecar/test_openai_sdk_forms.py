"""Sound and images with the official `openai` client: forms with files in, JSON, events or sound out."""

import asyncio
import email.parser
import email.policy
import io
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import END, STREAM_HEAD, Provider, ProviderRequest, chunk, providing, response
from tests.waiting import wait_until

pytestmark = pytest.mark.server
SOUND = b"ID3" + bytes(range(256)) * 64
TRANSCRIPT = {
    "text": "hello",
    "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16},
}
IMAGES = {
    "created": 1,
    "data": [{"b64_json": "aGVsbG8="}],
    "usage": {"input_tokens": 50, "output_tokens": 100, "total_tokens": 150},
}
PIECES = (
    {"type": "transcript.text.delta", "delta": "hel"},
    {"type": "transcript.text.delta", "delta": "lo"},
    {"type": "transcript.text.done", **TRANSCRIPT},
)
MIB = 1024 * 1024


def fields(request: ProviderRequest) -> dict[str, list[bytes]]:
    """A form's fields, as a parser that is none of ours reads them."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    found: dict[str, list[bytes]] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        value = part.get_payload(decode=True)
        assert isinstance(name, str)
        assert isinstance(value, bytes)
        found.setdefault(name, []).append(value)
    return found


class Playing:
    """Lets the provider's slow sound go on."""

    def __init__(self) -> None:
        self.heard = threading.Event()


@pytest.fixture(scope="module")
def playing() -> Playing:
    return Playing()


@pytest.fixture(scope="module")
def provider(playing: Playing) -> Iterator[Provider]:
    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        _, name, _, path = request.path.split("/", 3)
        if name == "broken":
            writer.write(response(500, b"{}"))
        elif name == "silent":
            await asyncio.sleep(60)
        elif name == "mistaken":
            error = {"message": "Audio file might be corrupted", "type": "invalid_request_error", "param": "file"}
            writer.write(response(400, json.dumps({"error": error}).encode()))
        elif path == "audio/speech":
            if name == "slow":
                head = "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
                writer.write(head.encode() + chunk(SOUND[:100]))
                await writer.drain()
                await asyncio.to_thread(playing.heard.wait, 20)
                writer.write(chunk(SOUND[100:]) + END)
            else:
                writer.write(response(200, SOUND, content_type="audio/mpeg"))
        elif path.startswith("audio/"):
            if fields(request).get("stream") == [b"true"]:
                told = [b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in PIECES]
                if name == "cut":
                    writer.write(STREAM_HEAD + chunk(told[0]))
                    await writer.drain()
                    writer.close()
                    return
                writer.write(STREAM_HEAD + b"".join(map(chunk, told)) + END)
            elif fields(request).get("response_format") == [b"text"]:
                writer.write(response(200, b"hello\n", content_type="text/plain"))
            else:
                writer.write(response(200, json.dumps(TRANSCRIPT).encode()))
        else:
            writer.write(response(200, json.dumps(IMAGES).encode()))

    with providing(behaviour) as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    names = ["good", "broken", "mistaken", "cut", "slow", "silent"]
    route = spec(
        provider.url,
        upstreams=[upstream(name, f"{provider.url}/{name}/v1", breaker={"maxFailures": 100}) for name in names],
        models=[
            *({"name": name, "targets": [{"upstream": name}]} for name in names),
            {"name": "renamed", "targets": [{"upstream": "good", "model": "gpt-4o-transcribe-eu"}]},
            {"name": "falls", "targets": [{"upstream": "broken"}], "fallbacks": ["renamed"]},
        ],
    )
    route["auth"]["clients"] = [{"name": "narrow", "models": ["good"]}]
    counted = spec(
        f"{provider.url}/good/v1",
        models=[{"name": "counted", "targets": [{"upstream": "provider"}]}],
        limits=[{"name": "tokens", "per": "Client", "tokens": 10_000, "window": "1h"}],
    )
    mock = spec(
        provider.url,
        upstreams=[upstream("mock", "mock://local?tokens=3")],
        models=[{"name": "mock", "targets": [{"upstream": "mock"}]}],
    )
    routes = {"chat": route, "counted": counted, "mock": mock}
    with running(tmp_path_factory.mktemp("gateway"), routes, keys={"narrow": "key-narrow"}) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def environment(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{gateway.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def client(environment: None) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(max_retries=0) as client:
        yield client


def transcribe(client: openai.OpenAI, model: str, sound: bytes = SOUND) -> str:
    return client.audio.transcriptions.create(model=model, file=("a.mp3", sound)).text


def test_a_transcription_goes_through_with_all_its_fields(client: openai.OpenAI, provider: Provider) -> None:
    answer = client.audio.transcriptions.create(
        model="good",
        file=("grüße.mp3", SOUND, "audio/mpeg"),
        language="de",
        prompt="Grüße",
        timestamp_granularities=["word", "segment"],
        response_format="json",
    )
    assert answer.text == "hello"
    request = provider.requests[-1]
    assert request.path == "/good/v1/audio/transcriptions"
    assert KEY not in str(request.headers)
    assert fields(request) == {
        "model": [b"good"],
        "language": [b"de"],
        "prompt": ["Grüße".encode()],
        "timestamp_granularities[]": [b"word", b"segment"],
        "response_format": [b"json"],
        "file": [SOUND],
    }


def test_the_model_is_renamed_in_the_form_and_the_file_is_left_as_it_is(
    client: openai.OpenAI, provider: Provider
) -> None:
    assert transcribe(client, "renamed") == "hello"
    assert fields(provider.requests[-1]) == {"model": [b"gpt-4o-transcribe-eu"], "file": [SOUND]}


def test_a_form_is_sent_again_whole_to_a_fallback(client: openai.OpenAI, provider: Provider) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(model="falls", file=("a.mp3", SOUND))
    assert answer.headers["x-fallback-model"] == "renamed"
    failed, served = provider.requests[-2:]
    assert fields(failed) == {"model": [b"falls"], "file": [SOUND]}
    assert fields(served) == {"model": [b"gpt-4o-transcribe-eu"], "file": [SOUND]}


def test_a_transcription_comes_event_by_event(client: openai.OpenAI) -> None:
    with client.audio.transcriptions.create(model="renamed", file=io.BytesIO(SOUND), stream=True) as stream:
        events = list(stream)
    assert [event.type for event in events] == [piece["type"] for piece in PIECES]
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == "hello"


def test_a_transcription_that_is_cut_does_not_look_finished(client: openai.OpenAI) -> None:
    heard = []
    stream = client.audio.transcriptions.create(model="cut", file=io.BytesIO(SOUND), stream=True)
    with pytest.raises(openai.APIError, match="broke off"):  # noqa: PT012 - what came before it is the point
        for event in stream:
            heard.append(event.type)  # noqa: PERF401
    assert heard == ["transcript.text.delta"]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by the SDK, not by the API
def test_a_translation_goes_through_and_comes_as_text(client: openai.OpenAI, provider: Provider) -> None:
    answer = client.audio.translations.create(model="good", file=("a.mp3", SOUND), response_format="text")
    assert str(answer).strip() == "hello"
    assert provider.requests[-1].path == "/good/v1/audio/translations"


def test_images_are_edited_with_several_files(client: openai.OpenAI, provider: Provider) -> None:
    pictures = [("a.png", b"\x89PNG1", "image/png"), ("b.png", b"\x89PNG2", "image/png")]
    answer = client.images.edit(model="renamed", image=pictures, prompt="a hat", n=1)
    assert answer.data is not None
    assert answer.data[0].b64_json == "aGVsbG8="
    request = provider.requests[-1]
    assert request.path == "/good/v1/images/edits"
    assert fields(request)["image[]"] == [b"\x89PNG1", b"\x89PNG2"]
    assert fields(request)["model"] == [b"gpt-4o-transcribe-eu"]


def test_speech_comes_back_as_the_bytes_that_it_is(client: openai.OpenAI, provider: Provider) -> None:
    answer = client.audio.speech.create(model="renamed", voice="alloy", input="hello")
    assert answer.content == SOUND
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert provider.requests[-1].json["model"] == "gpt-4o-transcribe-eu"


def test_speech_is_heard_while_it_is_made(client: openai.OpenAI, playing: Playing) -> None:
    """Not once it is whole: the provider goes on only when the beginning has been heard."""
    heard = b""
    with client.audio.speech.with_streaming_response.create(model="slow", voice="alloy", input="hello") as answer:
        for piece in answer.iter_bytes():
            heard += piece
            playing.heard.set()
    assert heard == SOUND


def test_a_mock_transcribes_plain_and_streamed(client: openai.OpenAI) -> None:
    assert transcribe(client, "mock") == "This answer comes"
    stream = client.audio.transcriptions.create(model="mock", file=io.BytesIO(SOUND), stream=True)
    assert [event.type for event in stream] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]


@pytest.mark.parametrize(
    ("model", "key", "error", "code"),
    [
        ("good", "unknown", openai.AuthenticationError, "invalid_api_key"),
        ("renamed", "key-narrow", openai.PermissionDeniedError, "model_not_allowed"),
        ("nowhere", KEY, openai.NotFoundError, "model_not_found"),
        ("broken", KEY, openai.InternalServerError, "upstream_failed"),
        ("mistaken", KEY, openai.BadRequestError, None),
    ],
)
def test_refusals_are_the_sdks_own_errors(
    environment: None, model: str, key: str, error: type[openai.APIStatusError], code: str | None
) -> None:
    with openai.OpenAI(api_key=key, max_retries=0) as client, pytest.raises(error) as raised:
        transcribe(client, model)
    assert raised.value.code == code


def test_tokens_are_counted_by_what_the_answer_says_and_never_by_the_files_size(
    client: openai.OpenAI, gateway: GatewayProcess
) -> None:
    """A file of megabytes must not be reserved as if it were a prompt: the limit would refuse it for ever."""
    labels = {"model": "counted", "upstream": "provider", "estimated": "false"}
    assert transcribe(client, "counted", SOUND * 100) == "hello"
    wait_until(lambda: gateway.metric("llmroute_tokens_total", type="input", **labels) == 14, "the input to be counted")
    assert gateway.metric("llmroute_tokens_total", type="output", **labels) == 2


def test_a_call_is_told_of_as_any_other(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(model="renamed", file=("secret-name.mp3", b"secret"))
    line = gateway.request_line(answer.headers["x-request-id"])
    assert (line["model"], line["status"], line["upstream"]) == ("renamed", 200, "good")
    assert gateway.metric("gateway_requests_total", method="POST", path="/v1/audio/transcriptions", status="200") >= 1
    assert "secret" not in gateway.log_path.read_text()


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [("/v1/files", 400, "model is required"), ("/v1/chat/completions", 400, "not valid JSON")],
)
def test_a_form_that_says_nothing_of_a_model_is_the_clients_mistake(
    gateway: GatewayProcess, provider: Provider, path: str, status: int, message: str
) -> None:
    before = len(provider.requests)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'
    answer = gateway.post(part, path, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "invalid_request")
    assert message in answer.json()["error"]["message"]
    assert len(provider.requests) == before


def test_the_sdks_upload_of_a_file_without_a_model_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.files.create(file=("batch.jsonl", b"{}"), purpose="batch")
    assert raised.value.param == "model"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.files.list()
    assert unknown.value.code == "unknown_url"


def test_an_upload_takes_twice_its_size_at_most_and_gives_it_back(gateway: GatewayProcess, provider: Provider) -> None:
    """It is kept while it may have to be sent again, and its copy with another model while that is under way."""
    size = 24 * MIB
    sound = bytes(size)

    def settled() -> int:
        wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "no call to be in flight")
        return gateway.memory_kib()

    with openai.OpenAI(max_retries=0) as client:
        transcribe(client, "falls", sound)  # as large as it gets: whatever is kept for good is there
        before = settled()
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: transcribe(client, "falls", sound), range(8))) == ["hello"] * 8
        assert gateway.peak_memory_kib() - before <= (2 * 4 + 1) * size // 1024
        # glibc keeps up to twice its largest block for the next one (M_TRIM_THRESHOLD); a leak would be eight of them.
        assert settled() - before < (2 * size + 4 * MIB) // 1024
    provider.requests.clear()


def test_an_upload_whose_client_leaves_is_over_for_the_provider_too(
    gateway: GatewayProcess, provider: Provider
) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nsilent\r\n--b--\r\n'
    head = (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {len(part)}\r\n\r\n"
    )

    def called() -> bool:
        return any(request.path.startswith("/silent/") for request in list(provider.requests))

    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(head.encode() + part)
        wait_until(called, "the provider to be called")
        open_before = provider.open
    wait_until(lambda: provider.open < open_before, "the provider's connection to be closed")
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "the call to be over")
