"""Builds the real images from images/*/Dockerfile, without any registry of images, as archives in the cache.

The base is made by debootstrap (a Dockerfile takes it as ARG BASE), the build is buildah's in a storage of our own, and
an archive is kept under a digest of all that goes into it, so that it is made once for one state of the sources. What
a run leaves that is killed in the middle of a build, the next one takes away; a storage that cannot be used is made
anew.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.children import with_us
from tests.cluster.go_build import Unavailable, cache_root, locked, say, tail, told
from tools.debian import find

REPOSITORY = Path(__file__).parents[2]
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
COMPILER = "gcc,libc6-dev,python3-dev"
"""What the stage that compiles has beside them."""
REGISTRY = "llmroute.test"
"""A name that no registry has; pods never pull (imagePullPolicy: Never)."""


def _tag(packages: str) -> str:
    return hashlib.sha256(f"{SUITE} {packages}".encode()).hexdigest()[:8]


PAUSE = f"{REGISTRY}/pause:1"
BASE = f"{REGISTRY}/base:{_tag(PACKAGES)}"
BUILD_BASE = f"{REGISTRY}/build-base:{_tag(f'{PACKAGES},{COMPILER}')}"
"""By what is asked for: a storage that another state of these tests has filled holds others."""
LITELLM = "gateway-litellm"
CHAT = "docker.io/llmroute/chat-app:0.1.0"
"""As examples/chat-app/kubernetes.yaml has it, which is applied as it stands."""
EPOCH = "1700000000"
"""SOURCE_DATE_EPOCH of all builds: the time that is written into images."""
KEPT = 4
"""Archives of earlier states that stay, for other worktrees on this machine."""
IN_USE_SECONDS = 7200
"""Another run may be about to load what was asked for so lately."""
_INPUTS = {
    "gateway": ("contract", "sidecar"),
    "operator": ("contract", "operator"),
}
# What a machine's own way to its package index needs: read during the build, never part of the image.
_MOUNTS = ("/etc/ssl/certs", "/usr/local/share/ca-certificates", "/usr/share/ca-certificates", "/etc/pip.conf")


@dataclass(frozen=True, slots=True)
class Image:
    reference: str
    """What a pod calls it."""
    archive: Path
    """An OCI archive, for `ctr images import`."""


def pause_image() -> Image:
    """What holds a pod's namespaces: busybox, asleep."""
    return _kept("pause", PAUSE, "1", _make_pause)


def gateway_image() -> Image:
    return _built("gateway")


def operator_image() -> Image:
    return _built("operator")


def litellm_image() -> Image:
    """The gateway's image with litellm beside it, whose environment is kept: it is the same for every gateway."""
    gateway = gateway_image()
    inputs = [REPOSITORY / "images" / LITELLM / "Dockerfile", REPOSITORY / ".dockerignore"]
    inputs += [REPOSITORY / "requirements" / f"{lock}.txt" for lock in ("litellm", "image-build")]

    def make(storage: Storage) -> None:
        build(LITELLM, f"{REGISTRY}/litellm-environment:1", storage, "--target", "build")
        below = storage.run("pull", "--quiet", f"oci-archive:{gateway.archive}")
        build(LITELLM, f"{REGISTRY}/{LITELLM}:1", storage, "--build-arg", f"GATEWAY={below}")

    return _kept(LITELLM, f"{REGISTRY}/{LITELLM}:1", _digest(inputs, gateway.archive.name), make)


def chat_image() -> Image:
    """The example chat, under the name that its manifest has."""
    context = REPOSITORY / "examples" / "chat-app"
    inputs = [context / name for name in ("Dockerfile", "requirements.txt", "app.py", "page.html")]

    def make(storage: Storage) -> None:
        _build(storage, context / "Dockerfile", context, CHAT)

    return _kept("chat-app", CHAT, _digest(inputs, _bases(BASE)), make)


def app_image() -> Image:
    """An app as teams write them: the official `openai` SDK, and the provider that it calls, which is played."""
    digest = _digest([REPOSITORY / "tests" / "cluster" / "app"], _bases(BASE))
    return _kept("app", f"{REGISTRY}/app:1", digest, _make_app)


def made_images() -> Sequence[Image]:
    """Those that every node has. Raises Unavailable."""
    return [pause_image(), gateway_image(), operator_image(), app_image()]


def more_images() -> Sequence[Image]:
    """Those that some tests want (`RealNode.load`). Raises Unavailable."""
    return [chat_image(), litellm_image()]


def build(name: str, reference: str, storage: "Storage", *arguments: str) -> None:
    """images/<name>/Dockerfile on our base, as a person would build it. Raises Unavailable."""
    _build(storage, REPOSITORY / "images" / name / "Dockerfile", REPOSITORY, reference, *arguments)


def layers(archive: Path) -> Sequence[str]:
    """The digests of an archive's layers, uncompressed: equal digests are equal content, times and modes included."""
    _, config = _manifest(archive)
    found: list[str] = config["rootfs"]["diff_ids"]
    return found


def size_mib(archive: Path, *, ours: bool = False) -> float:
    """Of all its layers as they are pulled; with `ours`, of those that are not the base's (its first)."""
    manifest, _ = _manifest(archive)
    total: int = sum(layer["size"] for layer in manifest["layers"][1 if ours else 0 :])
    return total / 2**20


def _manifest(archive: Path) -> tuple[Any, Any]:
    """An OCI archive's manifest and configuration."""
    with tarfile.open(archive) as tar:

        def read(path: str) -> Any:
            member = tar.extractfile(path)
            assert member is not None, path
            return json.load(member)

        def blob(digest: str) -> str:
            return "blobs/" + digest.replace(":", "/")

        manifest = read(blob(read("index.json")["manifests"][0]["digest"]))
        return manifest, read(blob(manifest["config"]["digest"]))


# --- buildah


@dataclass(frozen=True, slots=True)
class Storage:
    """buildah's, in a folder of ours: what the machine's own containers use is not touched."""

    folder: Path

    def run(self, *arguments: str) -> str:
        command = with_us(self.command(*arguments))
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise Unavailable(f"buildah {arguments[0]} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()

    def command(self, *arguments: str) -> list[str]:
        return ["buildah", "--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"), *arguments]

    def environment(self) -> dict[str, str]:
        driver = os.environ.get("STORAGE_DRIVER", "overlay")
        return {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": driver, "TMPDIR": str(self.scratch)}

    @property
    def scratch(self) -> Path:
        """Where buildah puts layers on their way."""
        return self.folder / "scratch"

    def save(self, reference: str, archive: Path) -> None:
        part = self.scratch / archive.name
        part.unlink(missing_ok=True)
        self.run("push", "--quiet", reference, f"oci-archive:{part}:{reference}")
        part.replace(archive)

    def tidy(self) -> None:
        """Takes away what a run left that was killed: containers, their mounts, half an archive."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        self.run("rm", "--all")

    def clear(self) -> None:
        """All of it, and what may still be mounted in it."""
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed(mounted):
            if Path(place).is_relative_to(self.folder):
                subprocess.run(["umount", "--lazy", place], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def folder() -> Path:
    return cache_root() / "images"


@contextmanager
def opened_storage() -> Iterator[Storage]:
    """The one storage, which one run uses at a time; our base is in it. Raises Unavailable."""
    with locked(folder(), "images"):
        storage = Storage(folder() / "storage")
        try:
            storage.tidy()
        except Unavailable as reason:
            _make_anew(storage, reason)
        _prepare(storage)
        try:
            yield storage
        finally:
            try:
                storage.run("rmi", "--prune")  # layers that no name holds
            except Unavailable as reason:  # the next run's first step is to tidy
                say(str(reason))


def _make_anew(storage: Storage, reason: Unavailable) -> None:
    say(f"the storage of images may be broken and is made anew: {reason}")
    storage.clear()
    storage.tidy()


def _prepare(storage: Storage) -> None:
    """Our bases are in it, and what they are is known."""
    for reference, packages in ((BASE, PACKAGES), (BUILD_BASE, f"{PACKAGES},{COMPILER}")):
        asked = ("images", "--quiet", "--no-trunc", "--filter", f"reference={reference}")
        if not storage.run(*asked):
            _make_base(storage, reference, packages)
        part = storage.scratch / "base"
        part.write_text(storage.run(*asked))
        part.replace(_base_file(reference))


def _base_file(reference: str) -> Path:
    return folder() / f"{reference.rpartition('/')[2].replace(':', '-')}.id"


def _bases(*references: str) -> str:
    """What goes into a digest for them: made again another day, with another Debian, they are others."""
    if not all(_base_file(reference).exists() for reference in references):
        _needs_buildah()
        with opened_storage():
            pass
    return " ".join([EPOCH, *(_base_file(reference).read_text() for reference in references)])


def _needs_buildah() -> None:
    if shutil.which("buildah") is None:
        raise Unavailable("there is no buildah to build images with; on Debian: apt-get install buildah")


def _built(name: str) -> Image:
    inputs = [REPOSITORY / "images" / name / "Dockerfile", REPOSITORY / ".dockerignore", REPOSITORY / "LICENSE"]
    inputs += [REPOSITORY / "requirements" / f"{lock}.txt" for lock in (name, "image-build")]
    pieces = ("pyproject.toml", "hatch_build.py", "src")
    inputs += [path for part in _INPUTS[name] for piece in pieces if (path := REPOSITORY / part / piece).exists()]
    reference = f"{REGISTRY}/{name}:1"
    seed = _bases(BASE, BUILD_BASE) if name == "gateway" else _bases(BASE)
    return _kept(name, reference, _digest(inputs, seed), lambda storage: build(name, reference, storage))


def _kept(name: str, reference: str, digest: str, make: "Callable[[Storage], None]") -> Image:
    """The archive for this digest, made first where it is not there."""
    archive = folder() / f"{name}-{digest[:16]}.tar"
    if not _used(archive):
        _needs_buildah()
        with opened_storage() as storage:
            if not _used(archive):  # another run may have made it meanwhile
                try:
                    make(storage)
                except Unavailable as reason:  # of the image, or of a storage that was left in the middle of a change
                    _make_anew(storage, reason)
                    _prepare(storage)
                    make(storage)
                storage.save(reference, archive)
            _forget_earlier(name)
    return Image(reference, archive)


def _used(archive: Path) -> bool:
    """Whether it is there; it is then not forgotten for a while."""
    try:
        os.utime(archive)
    except FileNotFoundError:
        return False
    return True


def _forget_earlier(name: str) -> None:
    archives = folder().glob(f"{name}-{'[0-9a-f]' * 16}.tar")
    used = sorted(((path.stat().st_mtime, path) for path in archives), reverse=True)
    for when, old in used[KEPT:]:
        if time.time() - when > IN_USE_SECONDS:
            old.unlink(missing_ok=True)


def _digest(paths: Sequence[Path], seed: str) -> str:
    """Of the content of these files and folders."""
    digest = hashlib.sha256(seed.encode())
    for path in paths:
        for file in sorted([path] if path.is_file() else path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"\0{file.relative_to(REPOSITORY)}\0{file.stat().st_mode & 0o111}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _build(storage: Storage, dockerfile: Path, context: Path, reference: str, *arguments: str) -> None:
    mounts = [mount for path in _MOUNTS if Path(path).exists() for mount in ("--volume", f"{path}:{path}:ro")]
    bases = ("--build-arg", f"BASE={BASE}", "--build-arg", f"BUILD_BASE={BUILD_BASE}")
    values = (*bases, "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}", "--timestamp", EPOCH)
    command = storage.command("bud", "--layers", *values, *mounts, *arguments, "-t", reference, "-f", str(dockerfile))
    log = storage.folder / "build.log"
    log.write_text("")
    if told(f"image {reference}", [*command, str(context)], log, env=storage.environment()) != 0:
        raise Unavailable(f"the image {reference} could not be built; the log is {log}, its end:\n{tail(log)}")


def _make_base(storage: Storage, reference: str, packages: str) -> None:
    """A small Debian with Python: what stands in for python:slim, which no registry here has."""
    debootstrap = find("debootstrap")
    if debootstrap is None:
        raise Unavailable("there is no debootstrap to make a base image with; on Debian: apt-get install debootstrap")
    root = storage.folder / "debian"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    log = storage.folder / "debootstrap.log"
    log.write_text("")
    command = [debootstrap, "--variant=minbase", f"--include={packages}", SUITE, str(root)]
    if told(f"base image {reference} (debootstrap)", command, log) != 0:
        raise Unavailable(f"debootstrap failed; the log is {log}, its end:\n{tail(log)}")
    shutil.rmtree(root / "var" / "cache" / "apt", ignore_errors=True)
    shutil.rmtree(root / "var" / "lib" / "apt" / "lists", ignore_errors=True)
    _commit(storage, reference, ["add", str(root), "/"], [])
    shutil.rmtree(root)


def _make_pause(storage: Storage) -> None:
    busybox = find("busybox")
    if busybox is None:
        raise Unavailable("there is no busybox for the pause image; on Debian: apt-get install busybox-static")
    entrypoint = ["--entrypoint", json.dumps(["/bin/busybox", "sleep", "1000000000"]), "--user", "65535:65535"]
    _commit(storage, PAUSE, ["copy", busybox, "/bin/busybox"], entrypoint)


def _make_app(storage: Storage) -> None:
    context = REPOSITORY / "tests" / "cluster" / "app"
    _build(storage, context / "Dockerfile", context, f"{REGISTRY}/app:1")


def _commit(storage: Storage, reference: str, filling: Sequence[str], settings: Sequence[str]) -> None:
    verb, *what = filling
    container = storage.run("from", "scratch")
    storage.run(verb, "--quiet", container, *what)
    if settings:
        storage.run("config", *settings, container)
    storage.run("commit", "--quiet", "--rm", "--timestamp", EPOCH, container, reference)
