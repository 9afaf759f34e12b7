"""What every object of an LLMRoute shares: how it is spelled, how strictly it is read, its CEL rules, its Secrets."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from llmroute_contract.fields import SecretKey, SecretName


def cel(
    rule: str,
    message: str,
    *,
    field: str | None = None,
    reason: Literal["FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"] | None = None,
) -> JsonDict:
    """One `x-kubernetes-validations` entry. `field`, below the object that has the rule, is the one to blame."""
    entry: JsonDict = {"rule": rule, "message": message}
    if field is not None:
        entry["fieldPath"] = f".{field}"
    if reason is not None:
        entry["reason"] = reason
    return entry


def rules(*entries: JsonDict) -> JsonDict:
    """CEL rules as a model's or field's `json_schema_extra`."""
    return {"x-kubernetes-validations": list(entries)}


class Part(BaseModel):
    """Base of every object in a route: camelCase outside, unknown fields and other types refused, values frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_means_absent(cls, document: Any) -> Any:
        """As the API server has it: it drops nulls before it fills in defaults. Of unknown fields it does not."""
        if not isinstance(document, dict) or None not in document.values():
            return document
        known = {field.alias for field in cls.model_fields.values()}
        return {name: value for name, value in document.items() if value is not None or name not in known}


class SecretEntry(Part):
    name: SecretName
    """Name of a Secret in the route's namespace."""
    key: SecretKey
    """Which entry of the Secret."""


class SecretWhole(Part):
    name: SecretName
    """Name of a Secret in the route's namespace."""


class SecretEntrySource(Part):
    secret_ref: SecretEntry
    """The Secret's entry that holds the value. It is mounted into the gateway; the controller never reads it."""


class SecretSource(Part):
    secret_ref: SecretWhole
    """The Secret. It is mounted into the gateway; the controller never reads it."""
