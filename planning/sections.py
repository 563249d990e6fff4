"""What price files and workload files have in common: sections that are checked, and errors that name the field."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from planning.ranges import RANGES, checked
from policies.document import Document, PolicyFileError


class UnusableFile(Exception):
    """A price or workload file that cannot be used; the message has every problem, its line and its field."""


class FigureSection(BaseModel):
    """A figure and between what it may lie. A bare number is taken to lie within the file's `spread`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    likely: float
    low: float | None = None
    high: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, data: Any) -> Any:
        return data if isinstance(data, dict) else {"likely": data}

    @model_validator(mode="after")
    def _in_order(self) -> FigureSection:
        if not (self.low is None or self.low <= self.likely) or not (self.high is None or self.likely <= self.high):
            raise ValueError("low, likely and high must be in this order")
        return self


class Section(BaseModel):
    """Base of the file's sections: no unknown keys, no text for numbers, and every figure within its range."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @field_validator("*")
    @classmethod
    def _sensible(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        if info.field_name in RANGES:
            for number in (value.likely, value.low, value.high) if isinstance(value, FigureSection) else (value,):
                if number is not None:
                    checked(info.field_name, number)
        return value


def validated(schema: type[Section], document: Document) -> Any:
    """A document's content as a `schema`.

    Raises:
        UnusableFile: It does not fit; with every problem.
    """
    try:
        # JSON mode, so that lists may fill tuples and text may be a date.
        return schema.model_validate_json(msgspec.json.encode(document.data), strict=True, extra="forbid")
    except (TypeError, msgspec.MsgspecError) as error:
        problem = document.problem((), f"holds a value that is not plain text, number, list or mapping: {error}")
        raise UnusableFile(str(document.error([problem]))) from None
    except ValidationError as error:
        problems = [document.problem(found["loc"], _sentence(found)) for found in error.errors()]
        raise UnusableFile(str(document.error(problems))) from None


def opened(content: bytes, source: str) -> Document:
    """A YAML document.

    Raises:
        UnusableFile: It is none.
    """
    try:
        return Document(content, source)
    except PolicyFileError as error:
        raise UnusableFile(str(error)) from None


def _sentence(found: Any) -> str:
    sentence: str = {
        "extra_forbidden": "unknown key",
        "unexpected_keyword_argument": "unknown key",
        "missing": "missing",
    }.get(found["type"], found["msg"])
    field = str(found["loc"][-1]) if found["loc"] else ""
    sentence = sentence.removeprefix("Value error, ").removeprefix(f"{field}: ").replace("Input should", "should")
    if field in RANGES and found["type"] != "value_error":
        sentence += f"; it must be {RANGES[field]}"
    return sentence
