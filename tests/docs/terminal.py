"""A reader's terminal: one shell, in which the commands of a page are run one after the other, and what stands for
those that would not end: the gateway of `llmroute run`, with its ports in place of the page's, and the controller."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.children import with_us
from tests.docs.blocks import REPOSITORY, Block, Command, commands_of, matches
from tests.sidecar.local_process import QUICKSTART, LocalProcess, running
from tests.waiting import wait_until

SCRIPTS = Path(sys.executable).parent
DONE_BEFORE = ("make setup",)
"""What whoever runs these tests has run."""
_MARK = "\x04the end of a command:"
SECONDS = 45.0
_CONTROLLER = re.compile(r"\S*llmroute-operator controller .* &")
_VARIES = re.compile(r"\b\d+s$|\b[0-9a-f]{16}\b", re.MULTILINE)
"""An age, and a revision: the namespace's name is in it."""
_RUN = re.compile(r"(?:\.venv/bin/)?llmroute run (?P<arguments>.*?)(?: &)?")


@dataclass
class Shell:
    process: subprocess.Popen[str]

    def run(self, line: str) -> tuple[int, str]:
        """Its exit code, and what it printed to stdout and stderr."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{{ {line}\n}} </dev/null\nprintf '%s%d\\n' '{_MARK}' $?\n")
        self.process.stdin.flush()
        said = ""
        for got in self.process.stdout:
            said += got
            before, found, code = said.partition(_MARK)
            if found:
                return int(code), before
        raise AssertionError(f"the shell ended: {line}\n{said}")


def agree(block: Block, command: Command, shown: str, got: str) -> None:
    assert matches(shown, got), f"{block.place}: {command.line}\nshown:\n{shown}\ngot:\n{got}"


@contextmanager
def shell(folder: Path, environment: Mapping[str, str]) -> Iterator[Shell]:
    """In a folder where the repository's paths are, but nothing that is written reaches it."""
    for name in (".venv", "charts", "examples", "manifests"):
        if not (folder / name).exists():
            (folder / name).symlink_to(SCRIPTS.parent if name == ".venv" else REPOSITORY / name)
    process = subprocess.Popen(
        with_us(["bash", "--noprofile", "--norc"]),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env=dict(environment),
    )  # fmt: skip
    try:
        yield Shell(process)
    finally:
        process.kill()
        process.communicate()


@dataclass
class LocalSession:
    """A page's commands on a laptop. A route that stands above calls is what they are made to."""

    folder: Path
    shell: Shell
    entered: ExitStack
    gateway: LocalProcess | None = None
    route: Path | None = None
    _count: int = field(default=0)

    def follow(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            if block.is_route:
                self.route, self.gateway = self.folder / "route.yaml", None
                self.route.write_text(block.text)
            elif block.language == "bash":
                code, got = self.shell.run(self._here(block.text))
                assert (code, bool(got)) == (0, True), f"{block.place}:\n{got}"
            else:
                for command in commands_of(block):
                    self._follow(block, command)

    def _follow(self, block: Block, command: Command) -> None:
        if command.line in DONE_BEFORE:
            return
        if command.line == "make run":
            told = self._start(QUICKSTART).told
            _, begins, shown = command.output.partition("llmroute: serving")
            agree(block, command, begins + shown, self._there(told))
        elif begun := _RUN.fullmatch(command.line):
            arguments = shlex.split(begun["arguments"])
            self._start(*(self.route or one if one == "route.yaml" else one for one in arguments if one != "-f"))
        else:
            if self.gateway is None:
                assert self.route is not None, f"{block.place}: there is neither a route nor llmroute run above this"
                self._start(self.route)
            _, got = self.shell.run(self._here(command.line))
            agree(block, command, command.output, got)

    def _start(self, *files: str | Path) -> LocalProcess:
        self._count += 1
        arguments = [part for file in files for part in ("-f", file)]
        self.gateway = self.entered.enter_context(running(self.folder / f"gateway-{self._count}", *arguments))
        return self.gateway

    def _ports(self) -> Mapping[str, str]:
        """Each of the page's addresses and ours."""
        assert self.gateway is not None
        ours = {"8790": self.gateway.url, "8791": self.gateway.admin_url}
        return {
            f"{host}:{port}": url.removeprefix("http://")
            for port, url in ours.items()
            for host in ("127.0.0.1", "localhost")
        }

    def _here(self, text: str) -> str:
        assert self.gateway is not None
        text = text.replace("llmroute ready", f"llmroute ready --port {self.gateway.url.rpartition(':')[2]}")
        for theirs, ours in self._ports().items():
            text = text.replace(theirs, ours)
        return text

    def _there(self, text: str) -> str:
        for theirs, ours in self._ports().items():
            text = text.replace(ours, theirs)
        return text


@dataclass
class ClusterSession:
    """A page's commands on a cluster where the controller runs. `shop` is a team's namespace."""

    shell: Shell
    shop: str

    def follow(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            for command in commands_of(block):
                if not _CONTROLLER.fullmatch(command.line):
                    self._follow(block, command)

    def _follow(self, block: Block, command: Command) -> None:
        line = re.sub(r"\bshop\b", self.shop, command.line)
        shown = _VARIES.sub("…", re.sub(r"\bshop\b", self.shop, command.output))

        code, got = self.shell.run(line)
        if not shown:  # what such a command says is of no interest
            assert code == 0, f"{block.place}: {line}\n{got}"
        elif line.startswith("kubectl get "):  # a person types more slowly than the controller works
            with suppress(AssertionError):
                wait_until(lambda: matches(shown, self.shell.run(line)[1]), line, SECONDS, every=0.3)
            agree(block, command, shown, self.shell.run(line)[1])
        else:
            agree(block, command, shown, got)
