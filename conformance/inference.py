"""Checks of inference in the protocol's own form: JSON over REST, contents over gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import grpc

from conformance.check import Check, Level
from conformance.rest import Answer, Rest, answer_of, excerpt, plain_input, plain_request
from conformance.rpc import Rpc, RpcAnswer, raw_request, said, typed_request
from conformance.tensors import Model, Tensor, a_version, differ, samples
from conformance.verdict import Fails, NotTried

ROWS = 3
IDENTIFIER = "conformance-7"
TRIES = 3
"""Comparisons are made again where they fail: a router may ask another model of the same name for the second answer."""


def agree(one: Callable[[], Mapping[str, Tensor]], other: Callable[[], Mapping[str, Tensor]]) -> None:
    """Asks one question in two ways.

    Raises:
        Fails: The answers differ each time.
    """
    difference = None
    for _ in range(TRIES):
        difference = differ(one(), other())
        if difference is None:
            return
    raise Fails(f"two forms of one request are answered differently: {difference}")


def declared(model: Model, outputs: Mapping[str, Tensor]) -> None:
    """Holds outputs against the metadata.

    Raises:
        Fails: Another set of names, another datatype, or a shape that the metadata does not allow.
    """
    specs = {spec.name: spec for spec in model.outputs}
    if specs.keys() != outputs.keys():
        raise Fails(f"{model.name} declares {', '.join(specs)} and answers {', '.join(outputs)}")
    for name, tensor in outputs.items():
        spec = specs[name]
        fits = len(spec.shape) == len(tensor.shape) and all(
            size in (-1, got) for size, got in zip(spec.shape, tensor.shape, strict=True)
        )
        if tensor.datatype != spec.datatype or not fits:
            raise Fails(
                f"{model.name} declares {name} as {spec.datatype}{list(spec.shape)} and answers "
                f"{tensor.datatype}{list(tensor.shape)}"
            )


def _named(model_name: object, model: Model) -> None:
    if model_name != model.name:
        raise Fails(f"'model_name' is {model_name!r}")


def _rest_infer(rest: Rest) -> None:
    _named(rest.infer(plain_request(samples(rest.subject))).document.get("model_name"), rest.subject)


def _rpc_infer(rpc: Rpc) -> None:
    _named(rpc.infer(typed_request(rpc.subject, samples(rpc.subject))).message.model_name, rpc.subject)


def _rest_nested(rest: Rest) -> None:
    tensors = samples(rest.subject)
    nested = {"inputs": [plain_input(tensor, nested=True) for tensor in tensors]}
    agree(lambda: rest.infer(nested).outputs, lambda: rest.infer(plain_request(tensors)).outputs)


def _rpc_raw(rpc: Rpc) -> None:
    tensors = samples(rpc.subject)
    message = rpc.infer(raw_request(rpc.subject, tensors)).message
    for output in message.outputs:
        if message.raw_output_contents and output.HasField("contents"):
            raise Fails(f"output {output.name} has contents beside raw contents")
    agree(
        lambda: rpc.infer(raw_request(rpc.subject, tensors)).outputs,
        lambda: rpc.infer(typed_request(rpc.subject, tensors)).outputs,
    )


def _rest_versioned(rest: Rest) -> None:
    version = a_version(rest.subject)
    answer = rest.infer(plain_request(samples(rest.subject)), version=version)
    if answer.document.get("model_version") not in (None, version):
        raise Fails(f"version {answer.document['model_version']!r} answered for {version!r}")


def _rpc_versioned(rpc: Rpc) -> None:
    version = a_version(rpc.subject)
    answer = rpc.infer(raw_request(rpc.subject, samples(rpc.subject), version))
    if answer.message.model_version not in ("", version):
        raise Fails(f"version {answer.message.model_version!r} answered for {version!r}")


def _rest_identifier(rest: Rest) -> None:
    answer = rest.infer(plain_request(samples(rest.subject), id=IDENTIFIER))
    _identified(answer.document.get("id"))


def _rpc_identifier(rpc: Rpc) -> None:
    _identified(rpc.infer(raw_request(rpc.subject, samples(rpc.subject), id=IDENTIFIER)).message.id)


def _identified(identifier: object) -> None:
    if identifier != IDENTIFIER:
        raise Fails(f"'id' came back as {identifier!r}")


def _rest_parameters(rest: Rest) -> None:
    rest.infer(plain_request(samples(rest.subject), parameters={"conformance_note": "nothing to do"}))


def _rpc_parameters(rpc: Rpc) -> None:
    request = raw_request(rpc.subject, samples(rpc.subject))
    request.parameters["conformance_note"].string_param = "nothing to do"
    rpc.infer(request)


def _rest_declared(rest: Rest) -> None:
    declared(rest.subject, rest.ask(rest.subject).outputs)


def _rpc_declared(rpc: Rpc) -> None:
    declared(rpc.subject, rpc.ask(rpc.subject).outputs)


def _rest_rows(rest: Rest) -> None:
    _batches(rest.subject)
    _in_rows(rest.subject, rest.ask(rest.subject, ROWS).outputs)


def _rpc_rows(rpc: Rpc) -> None:
    _batches(rpc.subject)
    _in_rows(rpc.subject, rpc.ask(rpc.subject, ROWS).outputs)


def _batches(model: Model) -> None:
    if not model.batches:
        raise NotTried(f"{model.name} takes a fixed number of rows")


def _in_rows(model: Model, outputs: Mapping[str, Tensor]) -> None:
    for spec in model.outputs:
        tensor = outputs.get(spec.name)
        # That an output is missing is another check's matter.
        if tensor is not None and spec.shape[:1] == (-1,) and tensor.shape[:1] != (ROWS,):
            raise Fails(f"{model.name} answers {spec.name} in the shape {list(tensor.shape)} to {ROWS} rows")


def _rest_selected(rest: Rest) -> None:
    last = rest.subject.outputs[-1].name
    _exactly([last], rest.infer(plain_request(samples(rest.subject), outputs=[{"name": last}])).outputs)


def _rpc_selected(rpc: Rpc) -> None:
    last = rpc.subject.outputs[-1].name
    _exactly([last], rpc.infer(raw_request(rpc.subject, samples(rpc.subject), outputs=[last])).outputs)


def _exactly(asked: Sequence[str], outputs: Iterable[str]) -> None:
    if list(outputs) != list(asked):
        raise Fails(f"asked for {', '.join(asked)}, answered {', '.join(outputs)}")


def _rest_answers(rest: Rest, faults: list[str]) -> Iterator[tuple[Model, Answer]]:
    """Every model that answers sample inputs; of the others, `faults` gets a sentence.

    A model that takes BYTES may refuse texts, since it may want other bytes: that is no fault.
    """
    for model in rest.models:
        try:
            document, raw = rest.request(model)
        except NotTried:
            continue
        response = rest.post(document, model, raw=raw)
        if response.status_code == 200:
            yield model, answer_of(response)
        elif response.status_code >= 500 or not _takes_bytes(model):
            faults.append(f"{model.name} answers {response.status_code}: {excerpt(response)}")


def _rpc_answers(rpc: Rpc, faults: list[str]) -> Iterator[tuple[Model, RpcAnswer]]:
    """Same over gRPC."""
    for model in rpc.models:
        try:
            yield model, rpc.ask(model)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT or not _takes_bytes(model):
                faults.append(f"{model.name} answers {said(error)}")


def _takes_bytes(model: Model) -> bool:
    return any(spec.datatype == "BYTES" for spec in model.inputs)


def _rest_every_model(rest: Rest) -> str:
    faults: list[str] = []
    return _seen([model for model, _ in _rest_answers(rest, faults)], faults)


def _rpc_every_model(rpc: Rpc) -> str:
    faults: list[str] = []
    return _seen([model for model, _ in _rpc_answers(rpc, faults)], faults)


def _seen(answering: Sequence[Model], faults: Sequence[str]) -> str:
    if faults:
        raise Fails("; ".join(faults))
    if not answering:
        raise NotTried("no model answers sample inputs")
    datatypes = frozenset().union(*(model.datatypes for model in answering))
    return f"{', '.join(model.name for model in answering)}: {', '.join(sorted(datatypes))}"


def _rest_order(rest: Rest) -> None:
    _in_order((model, answer.outputs) for model, answer in _rest_answers(rest, []))


def _rpc_order(rpc: Rpc) -> None:
    _in_order((model, answer.outputs) for model, answer in _rpc_answers(rpc, []))


def _in_order(answers: Iterable[tuple[Model, Mapping[str, Tensor]]]) -> None:
    several = [(model, outputs) for model, outputs in answers if len(model.outputs) > 1]
    if not several:
        raise NotTried("no model that answers has two outputs")
    for model, outputs in several:
        expected = [spec.name for spec in model.outputs]
        # Which outputs there are is another check's matter.
        if sorted(outputs) == sorted(expected) and list(outputs) != expected:
            place = next(place for place, name in enumerate(outputs) if name != expected[place])
            raise Fails(f"output {place + 1} of {model.name} is {list(outputs)[place]}; declared is {expected[place]}")


CHECKS = (
    Check(
        "infer",
        "An inference is answered with the model's name and outputs whose elements are as many as their shapes say.",
        Level.REQUIRED,
        _rest_infer,
        _rpc_infer,
    ),
    Check("data-nested", "Tensor data may be nested as well as flat.", Level.REQUIRED, _rest_nested),
    Check("raw-contents", "Raw contents mean the same as typed ones.", Level.REQUIRED, None, _rpc_raw),
    Check("infer-version", "A version may be named.", Level.REQUIRED, _rest_versioned, _rpc_versioned),
    Check("id", "The id of the request comes back.", Level.REQUIRED, _rest_identifier, _rpc_identifier),
    Check(
        "parameters",
        "A request may carry parameters; one that the server does not know does no harm.",
        Level.REQUIRED,
        _rest_parameters,
        _rpc_parameters,
    ),
    Check(
        "outputs-declared",
        "Where no outputs are named, all that the metadata declares come back, in its datatypes and shapes.",
        Level.REQUIRED,
        _rest_declared,
        _rpc_declared,
    ),
    Check(
        "outputs-selected", "Only the outputs that are named come back.", Level.REQUIRED, _rest_selected, _rpc_selected
    ),
    Check("outputs-order", "Outputs come in the metadata's order.", Level.EXTENSION, _rest_order, _rpc_order),
    Check(
        "rows",
        "A model whose first dimension is -1 takes several rows at once and answers as many.",
        Level.REQUIRED,
        _rest_rows,
        _rpc_rows,
    ),
    Check(
        "every-model",
        "Every model that is offered answers what fits its metadata.",
        Level.REQUIRED,
        _rest_every_model,
        _rpc_every_model,
    ),
)
