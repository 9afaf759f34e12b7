"""Makes contract/src/llmroute_contract/price_table.py from litellm's price data: what known models cost.

    python -m tools.prices [litellm==VERSION]

Fetches the wheel (pip, into a temporary folder; nothing of it is installed or run) and takes of its data no more than
two numbers for each model of the makers listed here, under the name that the maker's own API has. Hosts of other
people's models are left out: one name costs differently at each. Where a price has tiers (long prompts, batches), the
plain one is taken. Run by hand when prices have moved; the difference is then reviewed as any other.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "contract" / "src" / "llmroute_contract" / "price_table.py"
DATA = "litellm/model_prices_and_context_window_backup.json"
MAKERS = (
    "openai",
    "text-completion-openai",
    "anthropic",
    "gemini",
    "mistral",
    "cohere",
    "cohere_chat",
    "deepseek",
    "xai",
    "moonshot",
    "voyage",
)
"""In order of precedence."""
MODES = ("chat", "completion", "responses", "embedding")
MILLION = 1_000_000


def table(data: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Model -> dollars for a million tokens in and out."""
    found: dict[str, tuple[str, str]] = {}
    for maker in MAKERS:
        for name, facts in data.items():
            model = name.removeprefix(f"{maker}/")
            if facts.get("litellm_provider") != maker or facts.get("mode") not in MODES or "/" in model:
                continue
            given, made = _dollars(facts.get("input_cost_per_token")), _dollars(facts.get("output_cost_per_token"))
            if given is not None and made is not None and (given, made) != ("0", "0"):
                # Fine-tuned models have the customer's name and an id behind that of their base.
                found.setdefault(f"{model}*" if model.startswith("ft:") else model, (given, made))
    return dict(sorted(found.items()))


def _dollars(for_a_token: float | None) -> str | None:
    """For a million; None where it is not a price that `Usd` can hold."""
    # A float's shortest text is the number that was written; its sums would not be.
    amount = Decimal(repr(for_a_token or 0.0)) * MILLION
    if amount < 0 or amount != round(amount, 6):
        return None
    text = f"{amount:.6f}".rstrip("0").rstrip(".")
    return text or "0"


def module(prices: dict[str, tuple[str, str]], version: str) -> str:
    lines = "\n".join(f"{model} {given} {made}" for model, (given, made) in prices.items())
    return f'''"""What known models cost, in dollars for a million tokens: name, input, output.

Made by `python -m tools.prices` from the price data of litellm {version}; not to be edited. What a route says itself
(`spec.prices`) counts before it.
"""

TEXT = """\\
{lines}
"""
'''


def main(requirement: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", folder, requirement], check=True)
        (wheel,) = Path(folder).glob("litellm-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            prices = table(json.loads(archive.read(DATA)))
        version = wheel.name.split("-")[1]
    TABLE.write_text(module(prices, version))
    print(f"{len(prices)} models of litellm {version}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "litellm")
