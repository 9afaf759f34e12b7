"""What is changed in litellm itself, where it does what a gateway must not do. Each is proved needed by a test.

Done by replacing functions, of one locked version: where one of them is not there any more, the worker does not start.
"""

import sys
from typing import Any

import litellm
from litellm.litellm_core_utils import url_utils
from litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini import VertexGeminiConfig


def mend() -> None:
    _fetch_nothing_for_clients()
    _let_gemini_say_when_it_is_finished()


def _fetch_nothing_for_clients() -> None:
    """Some providers take images only inline, and litellm then fetches what a message names (or, to count tokens, looks
    at it): a client would choose whom the pod connects to. All of that goes through two functions."""

    def refuse(*_: object, **__: object) -> object:
        raise litellm.ImageFetchError("nothing is fetched for a client")

    async def refuse_soon(*_: object, **__: object) -> object:
        raise litellm.ImageFetchError("nothing is fetched for a client")

    for name, replacement in (("safe_get", refuse), ("async_safe_get", refuse_soon)):
        _must_be_there(url_utils, name)
        for module in [module for key, module in sys.modules.items() if key.startswith("litellm")]:
            if name in vars(module):
                setattr(module, name, replacement)


def _let_gemini_say_when_it_is_finished() -> None:
    """litellm takes a piece of Gemini's stream without a `finishReason` for a finished one, each of them: a cut answer
    could not be told from a whole one."""
    _must_be_there(VertexGeminiConfig, "_create_streaming_choice")
    make = VertexGeminiConfig._create_streaming_choice  # noqa: SLF001

    def make_unfinished(*arguments: Any, **named: Any) -> Any:
        choice = make(*arguments, **named)
        if not named["candidate"].get("finishReason"):
            choice.finish_reason = None
        return choice

    VertexGeminiConfig._create_streaming_choice = staticmethod(make_unfinished)  # noqa: SLF001


def _must_be_there(owner: object, name: str) -> None:
    if not callable(getattr(owner, name, None)):
        raise RuntimeError(f"this litellm has no {name} any more: litellm_worker/mending.py must be looked at anew")
