"""The published JSON Schema: what editors underline is what the loader refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from policies.schema import json_schema
from router.registry import BACKENDS, POLICIES, Registry

SAMPLE = (Path(__file__).parents[3] / "policies/samples/default.yaml").read_text()


@pytest.fixture(scope="module")
def validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json_schema())


def changed(path: tuple[str | int, ...], value: Any) -> Any:
    """The sample with one value changed; None deletes it."""
    document = copy.deepcopy(yaml.safe_load(SAMPLE))
    at = document
    for step in path[:-1]:
        at = at[step]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


def test_it_is_a_schema() -> None:
    jsonschema_rs.meta.validate(json_schema())


def test_the_sample_fits(validator: jsonschema_rs.Draft202012Validator) -> None:
    validator.validate(yaml.safe_load(SAMPLE))


def test_every_kind_is_described() -> None:
    definitions = json_schema()["$defs"]
    for section, group in (("BackendSection", BACKENDS), ("PolicySection", POLICIES)):
        titles = {option["title"] for option in definitions[section]["oneOf"]}
        assert titles == set(Registry(group).names())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("polices",), {}),
        (("version",), 2),
        (("version",), None),
        (("routes",), []),
        (("backends", "edge", "site"), None),
        (("backends", "edge", "kind"), "onxx"),
        (("backends", "edge", "intra_op_thread"), 1),
        (("backends", "edge", "price", "device", "wats"), 5),
        (("backends", "edge", "price", "device", "watts"), "five"),
        (("backends", "cloud", "url"), None),
        (("models", "digits", "inputs", "pixels", "dtype"), "float"),
        (("models", "digits", "variants", "edge", "flie"), "x"),
        (("models", "digits", "slo", "p95_ms"), 0),
        (("models", "digits", "image", "stages", 1), {"stage": "greyscale"}),
        (("policies", "kiosk", "kind"), "local-frist"),
        (("policies", "camera", "accept_if", "confidense"), 0.5),
        (("policies", "kiosk", "hedge"), "p95"),
        (("routes", 0, "data_clas"), "phi"),
        (("residency", "phi", "site"), ["cloud"]),
    ],
)
def test_a_slip_does_not_fit(
    validator: jsonschema_rs.Draft202012Validator, path: tuple[str | int, ...], value: Any
) -> None:
    assert not validator.is_valid(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("backends", "edge", "intra_op_threads"), 2),
        (("policies", "camera", "accept_if"), None),
        (("residency",), None),
        (("models", "digits", "version"), "2"),
        (("models", "digits", "variants", "cloud", "encoded_image"), None),
        (("models", "digits", "inputs", "pixels", "allow_nonfinite"), True),
    ],
)
def test_what_is_optional_is_optional(
    validator: jsonschema_rs.Draft202012Validator, path: tuple[str | int, ...], value: Any
) -> None:
    validator.validate(changed(path, value))
