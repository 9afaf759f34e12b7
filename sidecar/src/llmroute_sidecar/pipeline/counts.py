"""What a `usage` object comes to: tokens in and out, from what providers count apart and together. Pure.

By itself, as the objects are msgspec's, whose classes cannot be compiled, and each call reads one.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmroute_sidecar.pipeline.usage import Counts


def input_of(counts: "Counts") -> int | None:
    """Tokens that went in, those of a cache included; None where they are not told."""
    given, prompt, total = counts.input_tokens, counts.prompt_tokens, counts.total_tokens
    if given is not None:
        return int(given + (counts.cache_creation_input_tokens or 0) + (counts.cache_read_input_tokens or 0))
    if prompt is not None:
        return int(prompt)
    return None if total is None else int(max(0, total - (counts.completion_tokens or 0)))


def output_of(counts: "Counts") -> int | None:
    """Tokens that came out; None where they are not told."""
    stated, given, total = counts.output_tokens, counts.input_tokens, counts.total_tokens
    if stated is None:
        stated = counts.completion_tokens
    if given is None:
        given = counts.prompt_tokens
    if total is None or given is None:
        return None if stated is None else int(stated)
    return int(max(stated or 0, total - given))  # some count what was thought in the total alone
