"""What `llmroute run` tells the person at its terminal: where it serves, a call to try, and what came of each save.

Owns every word of it, on stderr; stdout holds the log. What happened is the process's to say, what is wrong with a file
the sources' (`file:line: field: message`).
"""

import json
import shlex
import time
from collections.abc import Callable
from typing import TextIO

from llmroute_sidecar.config.reload import Reload
from llmroute_sidecar.config.secrets import SecretValues
from llmroute_sidecar.policy.keys import may_use, parse_keys
from llmroute_sidecar.process import Listening, Observer
from llmroute_sidecar.snapshot import MissingSecret, Snapshot

MODELS_TOLD = 12
ANY_MODEL = "any-model"
"""To try where each name will do: an entry `*`, or a default upstream."""
_WILDCARD_HOSTS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told, not opened


class Narrator(Observer):
    """Tells `out`. Never raises: a terminal that is gone ends no gateway."""

    def __init__(
        self,
        out: TextIO,
        given_secrets: Callable[[], SecretValues],
        clock: Callable[[], float] = time.time,
        *,
        has_litellm: bool = False,
        notes: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        """`given_secrets` are those that stand in the person's own files, `notes` what is to be said of them, as last
        read."""
        self._given_notes = notes
        self._notes: tuple[str, ...] = ()
        self._has_litellm = has_litellm
        self._without_litellm: list[str] = []
        self._out = out
        self._given_secrets = given_secrets
        self._clock = clock
        self._listening: Listening | None = None
        self._served: Snapshot | None = None
        self._introduced = False
        self._healthy = True
        self._missing: tuple[MissingSecret, ...] = ()

    def reloaded(self, reload: Reload) -> None:
        before, now = self._served, reload.snapshot or self._served
        self._served = now
        self._tell(*(f"llmroute: {problem}" for problem in reload.problems))
        if self._listening is not None:
            if now is None or not self._introduced:
                self._introduce(self._listening)
            else:
                self._tell(f"llmroute: {self._outcome(reload, before, now)}")
        if now is not None and now.missing_secrets != self._missing:
            self._missing = now.missing_secrets
            self._tell_missing()
        if now is not None and not self._has_litellm:
            self._tell_litellm(now)
        if (notes := self._given_notes()) != self._notes:
            self._notes = notes
            self._tell(*(f"  note     {note}" for note in notes))
        self._healthy = reload.status.healthy

    def listening(self, listening: Listening) -> None:
        self._listening = listening
        self._introduce(listening)

    def draining(self, grace: float) -> None:
        self._tell(f"llmroute: ending; calls under way get {grace:g} s, a second Ctrl-C cuts them")

    def _introduce(self, listening: Listening) -> None:
        snapshot = self._served
        if snapshot is None:
            self._tell("llmroute: nothing is served yet; mend the file and save it (Ctrl-C ends)")
            return
        self._introduced = True
        base, admin = _url(listening.host, listening.port), _url(listening.admin_host, listening.admin_port)
        self._tell(
            f"llmroute: serving {base}/v1 (gateway {snapshot.gateway} in namespace {snapshot.namespace}, "
            f"revision {snapshot.revision})",
            f"  models  {_models(snapshot)}",
            *self._call_to_try(base, snapshot),
            f"  look    {admin}/  (a page; also /status, /metrics, /docs)",
            "  A file that is saved is taken over within a second; Ctrl-C ends.",
        )

    def _outcome(self, reload: Reload, before: Snapshot | None, now: Snapshot) -> str:
        changed = before is None or now.revision != before.revision
        if reload.snapshot is None or not (changed or reload.status.healthy):
            return f"not taken over; revision {now.revision} goes on being served"
        if not reload.status.healthy:
            return f"the rest is taken over: revision {now.revision} is served, with models {_models(now)}"
        if changed:
            return f"taken over: revision {now.revision} is served, with models {_models(now)}"
        if not self._healthy:
            return f"all is well again; revision {now.revision} is served"
        return f"taken over: revision {now.revision} is served as before, Secrets are read anew"

    def _tell_missing(self) -> None:
        self._tell(*(f"  missing  route {missing.route}: {missing}" for missing in self._missing))
        if self._missing:
            self._tell("           give it as a Secret document in a file, or as SECRET/ENTRY in --secrets-dir")

    def _tell_litellm(self, snapshot: Snapshot) -> None:
        before = self._without_litellm
        self._without_litellm = sorted(one.id for one in snapshot.upstreams.values() if one.url.scheme == "litellm")
        if self._without_litellm and self._without_litellm != before:
            self._tell(
                f"  missing  litellm, for the upstreams {', '.join(self._without_litellm)}",
                "           run `make litellm`, then give --litellm-python .venv-litellm/bin/python (docs/litellm.md)",
            )

    # -- a call to try -----------------------------------------------------------------------------------------------

    def _call_to_try(self, base: str, snapshot: Snapshot) -> list[str]:
        model = _model_to_try(snapshot)
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
        call = f"curl -s {base}/v1/chat/completions -H 'content-type: application/json' -d {shlex.quote(body)}"
        if snapshot.open:
            return [f"  try     {call}"]
        key = self._key_to_show(snapshot, model)
        if key is not None:
            return [f"  try     {call} -H {shlex.quote(f'authorization: Bearer {key}')}"]
        return [
            f'  try     {call} -H "authorization: Bearer $KEY"',
            "          with KEY=... a client's key, from the Secret that spec.auth.keysFrom names",
        ]

    def _key_to_show(self, snapshot: Snapshot, model: str) -> str | None:
        """A client's key that may have `model`, where showing one gives nothing away: it stands in the person's own
        file, and behind the gateway are mocks alone. What a terminal shows is often kept, so any other key is left out.
        """
        if any(upstream.url.scheme != "mock" for upstream in snapshot.upstreams.values()):
            return None
        entry = snapshot.models.find(model)
        contents = (content for entries in self._given_secrets().values.values() for content in entries.values())
        for key in (key for content in contents for key in parse_keys(content)):
            for client in snapshot.keys.find(key):
                of_route = entry is not None and client.route == entry.route
                if of_route and may_use(client, model, self._clock()) == "yes" and key.isascii():
                    return key.decode("ascii")
        return None

    def _tell(self, *lines: str) -> None:
        try:
            self._out.writelines(f"{line}\n" for line in lines)
            self._out.flush()
        except (OSError, ValueError):
            return


def _url(host: str, port: int) -> str:
    host = _WILDCARD_HOSTS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _models(snapshot: Snapshot) -> str:
    names = sorted(snapshot.model_names)
    more = len(names) - MODELS_TOLD
    listed = ", ".join(names[:MODELS_TOLD]) + (f" and {more} more" if more > 0 else "")
    return listed or "none by name"


def _model_to_try(snapshot: Snapshot) -> str:
    exact = snapshot.models.models()
    if exact:
        return exact[0]
    prefixes = sorted(name.removesuffix("*") for name in snapshot.model_names)
    return next(filter(None, prefixes), ANY_MODEL)
