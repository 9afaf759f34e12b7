"""Compose's own loader (compose-go, which `docker compose` is made of) as a program: checks a file by the schema and
the rules of the Compose specification, and prints what it means."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.go_build import cache_root, go_build, holds_all, locked, say

COMPOSE_GO = "2.16.2"
PROGRAM = "compose-load"
_MODULE = "github.com/compose-spec/compose-go/v2"
_HOW_TO = "install Go 1.26 or newer"
_MAIN = f"""
package main

import (
	"context"
	"fmt"
	"os"

	"{_MODULE}/cli"
)

func main() {{
	options, err := cli.NewProjectOptions(os.Args[1:])
	if err == nil {{
		project, failed := options.LoadProject(context.Background())
		if err = failed; err == nil {{
			text, failed := project.MarshalJSON()
			if err = failed; err == nil {{
				fmt.Println(string(text))
				return
			}}
		}}
	}}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}}
"""


class Refused(Exception):
    """Compose would not take the file; the text is what it says."""


def ensure_loader() -> Path:
    """The program, built once and kept in the cache. Raises Unavailable."""
    folder = cache_root() / f"compose-go-{COMPOSE_GO}"
    with locked(folder, "Compose's loader"):
        if not holds_all(folder, [PROGRAM]):
            say(f"building Compose's loader {COMPOSE_GO} from the Go module proxy, once")
            with go_build(folder, _HOW_TO) as build:
                work = build.work("compose")
                (work / "go.mod").write_text("module llmroute-test-compose\n")
                (work / "main.go").write_text(_MAIN)
                build.get("get", f"{_MODULE}@v{COMPOSE_GO}", work=work, name="compose-go: modules")
                build.build(PROGRAM, ".", work)
    return folder / PROGRAM


def load(program: Path, file: Path) -> dict[str, Any]:
    """The project that a Compose file makes, with whole paths. Raises Refused."""
    done = subprocess.run([str(program), str(file)], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Refused(done.stderr.strip())
    project: dict[str, Any] = json.loads(done.stdout)
    return project
