"""Payloads of benchmarks: what the gateway takes is sent, everything else is refused before anything is measured."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from app.codec.json_tensors import tensor_from_bytes, tensor_from_json
from planning.bench.payload import UnusablePayload, read_payload
from planning.bench.plan_file import load_plan
from planning.bench.subject_model import UnusableModel, prepare
from router.model import DTYPES, ModelSpec, TensorSpec
from tests.gateway_process import ROOT

ANY = {"image": TensorSpec("float32", (-1, 4)), "kind": TensorSpec("int8", (-1,)), "on": TensorSpec("bool", (-1,))}
TEXT = {"text": TensorSpec("string", (-1, 2))}
GOOD: dict[str, Any] = {"image": [[0.5, 1, 2, 3]], "kind": [7], "on": [True]}


def spec(inputs: dict[str, TensorSpec]) -> ModelSpec:
    return ModelSpec("benchmark", "1", inputs, {"label": TensorSpec("int64", (-1,))})


def written(folder: Path, name: str, content: bytes) -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def raw(tensor: Any, **given: Any) -> dict[str, Any]:
    content = base64.b64encode(tensor.tobytes()).decode()
    return {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "base64": content} | given


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.npz", b""),
        ("torn.npz", npz(image=np.zeros((1, 4), np.float32))[:-30]),
        ("flipped.npz", npz(image=np.zeros((1, 4), np.float32)).replace(b"'descr'", b"'dexcr'")),
        ("other.npz", b"PK\3\4 and no more"),
        ("pickled.npz", npz(image=np.array([{}], object))),
        ("empty.json", b""),
        ("list.json", b"[1]"),
        ("latin.json", b'{"image": "\xff"}'),
        ("deep.json", b'{"image": ' + b"[" * 100_000),
        ("absent.json", None),
    ],
)
def test_files_that_hold_no_payload_are_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes | None) -> None:
    file = tmp_path / name if content is None else written(tmp_path, name, content)
    with pytest.raises(UnusablePayload, match=r"^cannot be read: \S.*\.$"):
        read_payload(file, spec(ANY))


def test_an_array_without_a_name_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    with pytest.raises(UnusablePayload, match=r"it is no \.npz file"):
        read_payload(written(tmp_path, "one.npz", out.getvalue()), spec(ANY))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image": [[1, 2, 3]]}, r"inputs\.image has shape \[1, 3\]; it must be \[-1, 4\]"),
        ({"image": [[[1, 2, 3, 4]]]}, r"inputs\.image must be float32 in lists, 2 deep"),
        ({"image": [1, 2, 3, 4]}, r"inputs\.image must be float32 in lists, 2 deep"),
        ({"image": [[1, 2, 3, 4], [5]]}, r"inputs\.image must be float32 in lists"),
        ({"image": [[1, 2, 3, "4"]]}, r"inputs\.image must be float32.*got `str`"),
        ({"image": [[1, 2, 3, 1e300]]}, r"inputs\.image holds a value that is NaN, infinite or too large"),
        ({"image": []}, r"inputs\.image has shape"),
        ({"image": 5}, r"inputs\.image must be a nested list, or dtype, shape and base64"),
        ({"kind": [300]}, r"inputs\.kind must be int8"),
        ({"kind": [True]}, r"inputs\.kind must be int8.*got `bool`"),
        ({"kind": [1, 2]}, r"rows"),
        ({"on": [1]}, r"inputs\.on must be bool"),
        ({"more": [1]}, r"inputs\.more is not an input"),
        ({"kind": raw(np.zeros(1, np.int16))}, r"inputs\.kind has dtype int16; it must be int8"),
        ({"kind": raw(np.zeros(1, np.int8), shape=[2])}, r"inputs\.kind has 1 bytes"),
        ({"kind": raw(np.zeros(1, np.int8), shape=[-1])}, r"inputs\.kind has dtype 'int8' and shape \[-1\]"),
        ({"kind": raw(np.zeros(1, np.int8), dtype="<U1")}, r"inputs\.kind has dtype '<U1'"),
        ({"kind": raw(np.zeros(1, np.int8), base64="?")}, r"inputs\.kind must be a nested list, or dtype"),
    ],
)
def test_what_the_model_does_not_take_is_refused_by_name(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    file = written(tmp_path, "payload.json", json.dumps(GOOD | wrong).encode())
    with pytest.raises(UnusablePayload, match=f"does not fit the model: .*{said}"):
        read_payload(file, spec(ANY))


def test_arrays_of_another_type_or_shape_are_refused(tmp_path: Path) -> None:
    good = {"image": np.ones((1, 4), np.float32), "kind": np.ones(1, np.int8), "on": np.ones(1, bool)}
    assert read_payload(written(tmp_path, "good.npz", npz(**good)), spec(ANY)).keys() == ANY.keys()
    for wrong in ({"image": np.ones((1, 4))}, {"image": np.ones((1, 5), np.float32)}, {"kind": np.array(["1"])}):
        with pytest.raises(UnusablePayload, match="does not fit the model"):
            read_payload(written(tmp_path, "wrong.npz", npz(**good | wrong)), spec(ANY))
    with pytest.raises(UnusablePayload, match=r"inputs\.on is missing"):
        read_payload(written(tmp_path, "few.npz", npz(image=good["image"], kind=good["kind"])), spec(ANY))


@pytest.mark.parametrize("array", [np.array([["a", "höher"]]), np.array([["a", "höher".encode()]], np.bytes_)])
def test_text_of_an_npz_is_sent_as_text(tmp_path: Path, array: Any) -> None:
    file = written(tmp_path, "text.npz", npz(text=array))
    assert read_payload(file, spec(TEXT)) == {"text": [["a", "höher"]]}


NUMBERS = st.sampled_from(["bool", "int8", "uint16", "int64", "uint64", "float16", "float32", "float64"])


@given(NUMBERS.flatmap(lambda name: npst.arrays(DTYPES[name], npst.array_shapes(max_dims=3, max_side=3))), st.data())
def test_the_gateways_codec_reads_what_is_sent(
    tmp_path_factory: pytest.TempPathFactory, tensor: Any, data: st.DataObject
) -> None:
    name = str(tensor.dtype)
    wanted = spec({"x": TensorSpec(name, tensor.shape, allow_nonfinite=True)})
    swapped = tensor.astype(tensor.dtype.newbyteorder(data.draw(st.sampled_from("<>"))))
    folder = tmp_path_factory.mktemp("payload")
    sent = read_payload(written(folder, "x.npz", npz(x=swapped)), wanted)["x"]
    read = tensor_from_bytes(base64.b64decode(sent["base64"]), sent["dtype"], sent["shape"], "x")
    assert np.array_equal(read, tensor, equal_nan=tensor.dtype.kind == "f")
    finite = np.nan_to_num(tensor, posinf=1, neginf=1) if tensor.dtype.kind == "f" else tensor
    listed = written(folder, "x.json", json.dumps({"x": finite.tolist()}).encode())
    again = tensor_from_json(json.dumps(read_payload(listed, wanted)["x"]).encode(), name, "x")
    assert np.array_equal(again, finite)


def test_a_plan_whose_payload_does_not_fit_is_refused_with_the_files_name(tmp_path: Path) -> None:
    model = ROOT / "deploy/models/digits-edge.onnx"
    file = written(tmp_path, "payload.npz", npz(pixels=np.zeros((1, 63), np.float32)))
    plan = load_plan(
        f"{{version: 1, name: p, model: {{file: '{model}', payload: '{file}'}}, subjects: {{a: {{alone: edge}}}}, "
        "scenarios: {s: {per_second: 10, seconds: 1}}}".encode()
    )
    with pytest.raises(UnusableModel, match=r"model\.payload: .*payload\.npz does not fit the model: inputs\.pixels"):
        prepare(plan, tmp_path)
