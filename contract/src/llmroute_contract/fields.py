"""The types of an LLMRoute's fields that are written as small texts: how each is read, and what the CRD says of it.

What the texts mean is `scalars.py`'s. Which field is of which type is for `llmroute.py` to say.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, StringConstraints, WithJsonSchema
from pydantic_core import core_schema

from llmroute_contract.scalars import (
    DURATION_PATTERN,
    INSTANT_EXPECTED,
    INSTANT_PATTERN,
    LABEL_PATTERN,
    MODEL_MATCH_PATTERN,
    MODEL_PATTERN,
    SECRET_KEY_PATTERN,
    SUBDOMAIN_PATTERN,
    USD_PATTERN,
    format_duration,
    parse_duration,
    parse_instant,
)


@dataclass(frozen=True, slots=True)
class DurationBetween:
    """Annotates a field of seconds that is written as a duration text from `least` to `most`, both included."""

    least: str
    most: str

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        low, high = parse_duration(self.least), parse_duration(self.most)

        def parse(text: object) -> float:
            seconds = parse_duration(text)
            if not low <= seconds <= high:
                raise ValueError(f"must be from {self.least} to {self.most}, not {text}")
            return seconds

        return core_schema.no_info_plain_validator_function(
            parse, serialization=core_schema.plain_serializer_function_ser_schema(format_duration)
        )

    def __get_pydantic_json_schema__(self, _schema: core_schema.CoreSchema, _handler: object) -> dict[str, Any]:
        in_bounds = f"duration(self) >= duration('{self.least}') && duration(self) <= duration('{self.most}')"
        rule = {
            "rule": f"self.matches('{DURATION_PATTERN}') && {in_bounds}",
            "message": f"must be a duration such as 200ms, 30s or 1m30s, from {self.least} to {self.most}",
        }
        # The pattern stands beside the rule that says more, for tools that know no CEL.
        return {
            "type": "string",
            "pattern": DURATION_PATTERN,
            "maxLength": 32,
            "x-kubernetes-validations": [rule],
        }


Instant = Annotated[
    datetime,
    BeforeValidator(parse_instant),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": INSTANT_PATTERN,
            "maxLength": 64,
            # Not `format: date-time`: where there is a format, the API server lets a list pass for a text.
            "x-kubernetes-validations": [
                {
                    "rule": f"self.matches('{INSTANT_PATTERN}') && timestamp(self) > timestamp('0001-01-01T00:00:00Z')",
                    "message": INSTANT_EXPECTED,
                }
            ],
        }
    ),
]
"""A moment that a person writes."""

KubernetesTime = Annotated[
    datetime,
    BeforeValidator(parse_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64}),
]
"""One that Kubernetes or the controller writes, declared as `metav1.Time` is."""

Label = Annotated[str, StringConstraints(pattern=LABEL_PATTERN, min_length=1, max_length=63)]
"""A DNS label (RFC 1123): names of upstreams, limits, gateways."""

SecretName = Annotated[str, StringConstraints(pattern=SUBDOMAIN_PATTERN, min_length=1, max_length=253)]
SecretKey = Annotated[str, StringConstraints(pattern=SECRET_KEY_PATTERN, min_length=1, max_length=253)]
ClientName = SecretKey
"""A client is named by its entry's key in the Secret of client keys."""

ModelName = Annotated[str, StringConstraints(pattern=MODEL_PATTERN, min_length=1, max_length=200)]
ModelMatch = Annotated[str, StringConstraints(pattern=MODEL_MATCH_PATTERN, min_length=1, max_length=200)]
"""A model's name; a trailing `*` matches a prefix, `*` alone every model."""

Usd = Annotated[str, StringConstraints(pattern=USD_PATTERN, max_length=16)]
"""US dollars, as a decimal text: a float would lose cents."""
