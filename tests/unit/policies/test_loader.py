"""Every kind of mistake in a policy file: the right line, the right field, and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.document import MAX_BYTES, PolicyFileError, Problem
from policies.loader import load
from policies.split import Split
from router.model import TensorSpec
from router.plan import AcceptIf
from router.pricing import DevicePrice, NodePrice
from router.stages import Decode, Grayscale, Normalize, Resize

SAMPLE = (Path(__file__).parents[3] / "policies/samples/default.yaml").read_text()


def line_of(text: str, fragment: str) -> int:
    """The line in which a fragment stands, from 1; it stands in one only."""
    (found,) = [number for number, line in enumerate(text.splitlines(), 1) if fragment in line]
    return found


def mistaken(old: str, new: str) -> str:
    """The sample with a mistake in it."""
    assert SAMPLE.count(old) == 1, f"{old!r} stands there {SAMPLE.count(old)} times"
    return SAMPLE.replace(old, new)


def problems(content: str | bytes) -> tuple[Problem, ...]:
    """What is wrong with a file that has something wrong with it."""
    with pytest.raises(PolicyFileError) as caught:
        load(content if isinstance(content, bytes) else content.encode(), "policy.yaml")
    assert caught.value.problems
    lines = [problem.line for problem in caught.value.problems]
    assert lines == sorted(lines)
    assert str(caught.value).splitlines()[0].startswith(f"policy.yaml, line {lines[0]}: ")
    return caught.value.problems


def test_the_sample_says_what_it_says() -> None:
    deployment = load(SAMPLE.encode())
    digits = deployment.models["digits"]
    assert digits.spec.inputs == {"pixels": TensorSpec("float32", (-1, 64))}
    assert digits.spec.confidence_output == "probabilities"
    assert digits.spec.image is not None
    assert digits.spec.image.stages == (Decode(), Grayscale(), Resize(8, 8, "box"), Normalize(0, 255))
    assert (digits.slo_p95_s, digits.deadline_s) == (0.05, 0.5)
    assert [(name, v.label, v.takes_image) for name, v in digits.variants.items()] == [
        ("edge", "digits-edge.onnx", False),
        ("cloud", "digits:1", True),
    ]
    edge, cloud = deployment.backends["edge"], deployment.backends["cloud"]
    assert edge.price == DevicePrice(200, 3, 5, 0.12, 50, 2_160_000)
    assert cloud.price == NodePrice(2.0, 200, 1.0, 0.09)
    assert (edge.site, cloud.site, cloud.options.url) == ("on-premises", "cloud", "grpc://127.0.0.1:8001")
    assert deployment.policies["camera"] == Split(AcceptIf(0.95))
    assert deployment.residency == {"phi": frozenset({"on-premises"}), "camera": None}
    assert [deployment.route(*pair) for pair in (("digits", "phi"), ("digits", "camera"), ("embed", "camera"))] == [
        "kiosk",
        "camera",
        "documents",
    ]


def test_the_same_file_gives_an_equal_deployment() -> None:
    one, other = load(SAMPLE.encode()), load(SAMPLE.encode())
    assert (one.backends, one.models, one.policies, one.routes, one.residency) == (
        other.backends,
        other.models,
        other.policies,
        other.routes,
        other.residency,
    )


MISTAKES = [
    # what is in the file, what a slip makes of it, the field, part of the sentence
    ("version: 1\n", "version: 2\n", "version", "should be 1"),
    ("version: 1\n", "version: '1'\n", "version", "should be 1"),
    ("    site: cloud\n", "    site: cloud\n    colour: red\n", "backends.cloud.colour", "unknown key"),
    ("    site: cloud\n", "", "backends.cloud.site", "missing"),
    ("    site: cloud\n", "    site: [cloud]\n", "backends.cloud.site", "string"),
    ("    site: cloud\n", "    site: my cloud\n", "backends.cloud.site", "pattern"),
    ("    kind: triton\n", "    kind: tritn\n", "backends.cloud.kind", "did you mean 'triton'?"),
    ("    url: grpc://127.0.0.1:8001\n", "", "backends.cloud.url", "missing"),
    ("grpc://127.0.0.1:8001", "http://127.0.0.1:8001", "backends.cloud", "grpc://host:8001"),
    ("grpc://127.0.0.1:8001", "grpc://127.0.0.1", "backends.cloud", "grpc://host:8001"),
    ("grpc://127.0.0.1:8001", "grpc://127.0.0.1:99999", "backends.cloud", "grpc://host:8001"),
    ("grpc://127.0.0.1:8001", "5", "backends.cloud.url", "string"),
    ("        watts: 5\n", "        watts: five\n", "backends.edge.price.device.watts", "number"),
    ("        watts: 5\n", "        watts: true\n", "backends.edge.price.device.watts", "number"),
    ("        watts: 5\n", "        watts: .nan\n", "backends.edge.price.device.watts", "number"),
    ("        watts: 5\n", "        watts: -5\n", "backends.edge.price.device", "watts"),
    ("        watts: 5\n", "        wats: 5\n", "backends.edge.price.device.wats", "unknown key"),
    ("lifetime_years: 3", "lifetime_years: 0", "backends.edge.price.device", "lifetime_years must be above 0"),
    ("utilisation: 1.0", "utilisation: 1.5", "backends.cloud.price.node", "utilisation must be above 0"),
    ("      node: ", "      rent: ", "backends.cloud.price.rent", "unknown key"),
    ("dtype: int64", "dtype: int65", "models.digits.outputs.label.dtype", "'int64'"),
    ("shape: [-1, 64]", "shape: [-1, 0]", "models.digits.inputs.pixels.shape", "at least 1"),
    ("shape: [-1, 64]", "shape: [-1, 6.4]", "models.digits.inputs.pixels.shape[1]", "integer"),
    ("confidence: probabilities", "confidence: probabilitys", "models.digits.confidence", "mean 'probabilities'?"),
    ("confidence: probabilities", "confidence: label", "models.digits.confidence", "floating point"),
    ("input: pixels", "input: pixel", "models.digits.image.input", "did you mean 'pixels'?"),
    ("{stage: grayscale}", "{stage: greyscale}", "models.digits.image.stages[1]", "'grayscale'"),
    ("{stage: grayscale}", "{stage: decode}", "models.digits.image.stages", "first stage, and no other"),
    ("std: 255", "std: 0", "models.digits.image.stages[3]", "std cannot be 0"),
    ("width: 8,", "width: 0,", "models.digits.image.stages[2]", "width"),
    ("max_pixels: 16000000", "max_pixel: 16000000", "models.digits.image.stages[0].max_pixel", "unknown key"),
    ("edge: {file: digits-edge.onnx}", "edge: {flie: digits-edge.onnx}", "models.digits.variants.edge.file", "missing"),
    ("edge: {file: digits-edge.onnx}", "egde: {file: d.onnx}", "models.digits.variants.egde", "did you mean 'edge'?"),
    ("kind: local-first", "kind: local-frist", "policies.kiosk.kind", "did you mean 'local-first'?"),
    ("kind: local-first", "hedge: p95, kind: local-first", "policies.kiosk.hedge", "unknown key"),
    ("confidence: 0.95", "confidence: 95", "policies.camera.accept_if", "between 0 and 1"),
    ("confidence: 0.95", "confidence: high", "policies.camera.accept_if.confidence", "number"),
    ("{data_class: phi, policy: kiosk}", "{data_class: phi, policy: kisok}", "routes[0].policy", "mean 'kiosk'?"),
    ("{data_class: phi, policy: kiosk}", "{data_class: phl, policy: kiosk}", "routes[0].data_class", "mean 'phi'?"),
    ("{model: digits, data_class", "{model: digit, data_class", "routes[1].model", "did you mean 'digits'?"),
    ("{model: digits, data_class", "{modle: digits, data_class", "routes[1].modle", "unknown key"),
    ("phi: {sites: [on-premises]}", "phi: {sites: [on-premise]}", "residency.phi.sites[0]", "mean 'on-premises'?"),
    ("phi: {sites: [on-premises]}", "phi: {site: [on-premises]}", "residency.phi.site", "unknown key"),
]


@pytest.mark.parametrize(("old", "new", "field", "sentence"), MISTAKES)
def test_a_mistake_is_found_where_it_is(old: str, new: str, field: str, sentence: str) -> None:
    found = [problem for problem in problems(mistaken(old, new)) if problem.where == field]
    assert len(found) == 1, "named once, and under its name"
    assert sentence in found[0].message


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ("    site: cloud\n", "    site: cloud\n    colour: red\n", "colour: red"),
        ("    kind: triton\n", "    kind: tritn\n", "kind: tritn"),
        ("        watts: 5\n", "        watts: five\n", "watts: five"),
        ("grpc://127.0.0.1:8001", "5", "url: 5"),
        ("std: 255", "std: 0", "std: 0"),
        ("kind: local-first", "kind: local-frist", "kind: local-frist"),
        ("{data_class: phi, policy: kiosk}", "{data_class: phi, policy: kisok}", "policy: kisok"),
        ("{data_class: phi, policy: kiosk}", "{data_class: phl, policy: kiosk}", "data_class: phl"),
        ("phi: {sites: [on-premises]}", "phi: {sites: [on-premise]}", "sites: [on-premise]"),
        ("edge: {file: digits-edge.onnx}", "egde: {file: digits-edge.onnx}", "egde:"),
        ("dtype: int64", "dtype: int65", "dtype: int65"),
        ("    site: cloud\n", "", "  cloud:\n".strip() + "\n"),
    ],
)
def test_the_line_is_the_mistakes_own(old: str, new: str, at: str) -> None:
    text = mistaken(old, new)
    lines = {problem.line for problem in problems(text)}
    wanted = line_of(text, at) if at != "cloud:\n" else text.splitlines().index("  cloud:") + 1
    assert wanted in lines


def test_all_mistakes_are_reported_together() -> None:
    text = mistaken("kind: local-first", "kind: local-frist").replace("watts: 5", "watts: five", 1)
    assert len({problem.line for problem in problems(text)}) == 1, "a wrong type hides what is only found later"
    text = mistaken("kind: local-first", "kind: local-frist").replace("policy: documents}", "policy: document}", 1)
    assert {problem.where for problem in problems(text)} == {"policies.kiosk.kind", "routes[2].policy"}


def test_a_threshold_on_a_model_without_confidence_is_found_at_the_route() -> None:
    text = mistaken("{model: digits, data_class: camera", "{model: embed, data_class: camera")
    (problem,) = problems(text)
    assert (problem.line, problem.where) == (line_of(text, "model: embed, data_class"), "routes[1].policy")
    assert "camera cannot serve embed: accept_if needs a model with a `confidence` output" in problem.message


def test_a_model_that_no_route_serves_is_named() -> None:
    text = mistaken("  - {policy: documents}\n", "  - {model: digits, policy: documents}\n")
    for problem in problems(text):
        assert (problem.line, problem.where) == (line_of(text, "routes:  "), "routes")
        assert "no route matches model 'embed'" in problem.message


def test_a_model_called_like_a_stage_keeps_its_name_in_errors() -> None:
    text = SAMPLE.replace("  embed:\n", "  resize:\n", 1).replace("shape: [-1, 16]", "shape: sixteen", 1)
    (problem,) = problems(text)
    assert problem.where == "models.resize.outputs.embedding.shape"
    assert problem.line == line_of(text, "shape: sixteen")


def test_a_key_that_stands_twice_is_found() -> None:
    text = mistaken("  kiosk: {kind: local-first}\n", "  kiosk: {kind: local-first}\n  kiosk: {kind: cloud-primary}\n")
    (problem,) = problems(text)
    first = line_of(text, "kiosk: {kind: local-first}")
    assert (problem.line, problem.where) == (first + 1, "policies.kiosk")
    assert problem.message == f"stands in line {first} already"


@pytest.mark.parametrize(
    ("content", "line", "sentence"),
    [
        (b"", 1, "empty, or not a mapping"),
        (b"# nothing but a comment\n", 1, "empty, or not a mapping"),
        (b"- a\n- list\n", 1, "empty, or not a mapping"),
        (b"just text", 1, "empty, or not a mapping"),
        (b"version: 1\nname: \xff\n", 2, "not UTF-8"),
        (b"version: 1\n\tbackends: {}\n", 2, "not YAML"),
        (b"version: 1\nbackends: {edge: [}\n", 2, "not YAML"),
        (b"version: 1\nbackends: *nobody\n", 2, "not YAML"),
        (b"version: 1\n---\nversion: 1\n", 2, "not YAML"),
        (b"version: !!python/object:os.system 1\n", 1, "not YAML"),
        (b"version: 1\x00\n", 1, "not YAML"),
        (b"#" * (MAX_BYTES + 1), 1, f"larger than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_no_such_file_at_all_is_said_in_one_sentence(content: bytes, line: int, sentence: str) -> None:
    (problem,) = problems(content)
    assert (problem.line, problem.where) == (line, "")
    assert sentence in problem.message


def test_only_whole_sections_are_missing_from_an_empty_mapping() -> None:
    assert {problem.where for problem in problems(b"{}")} == {"version", "backends", "models", "policies", "routes"}
