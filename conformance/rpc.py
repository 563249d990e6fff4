"""A server's gRPC side: calls with deadlines, answers as tensors.

Invariants:
- Every call has a deadline.
- A call that ends with a status other than OK raises `grpc.RpcError`; a check that expects one asks `refusal`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from conformance.tensors import Model, Spec, Tensor, from_plain, from_raw, samples
from conformance.verdict import Fails, NotOffered, NotTried

CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Which field of the typed contents carries a datatype; FP16 and BF16 have none."""

CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class Rpc:
    """What the checks ask over gRPC.

    Attributes:
        channel: The channel.
        timeout_s: The deadline of a call, seconds from its start.
        metadata: What every call carries.
        models: Those that the server offers and describes.
        subject: The model that most checks ask.
    """

    channel: grpc.Channel
    timeout_s: float
    metadata: tuple[tuple[str, str], ...]
    models: tuple[Model, ...]
    subject: Model

    def call(self, method: str, request: Any, timeout_s: float | None = None) -> Any:
        """Calls a method of the inference service.

        Raises:
            grpc.RpcError: The status was not OK.
        """
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        timeout = self.timeout_s if timeout_s is None else timeout_s
        return getattr(stub, method)(request, timeout=timeout, metadata=self.metadata)

    def offered(self, method: str, request: Any) -> Any:
        """Calls a method that a server need not have.

        Raises:
            NotOffered: It has not.
            grpc.RpcError: The status was another one.
        """
        try:
            return self.call(method, request)
        except grpc.RpcError as error:
            raise_if_not_offered(error)
            raise

    def infer(self, request: pb.ModelInferRequest) -> RpcAnswer:
        """Asks for an inference, which must succeed.

        Raises:
            Fails: The answer is not in the protocol's form.
            grpc.RpcError: It did not succeed.
        """
        return rpc_answer(self.call("ModelInfer", request))

    def ask(self, model: Model, rows: int = 1) -> RpcAnswer:
        """Asks a model with sample inputs as raw contents.

        Raises:
            Fails: The answer is not in the protocol's form.
            grpc.RpcError: It did not succeed.
        """
        return self.infer(raw_request(model, samples(model, rows)))


@dataclass(frozen=True, slots=True)
class RpcAnswer:
    """An inference's answer: the message, and its tensors in the message's order."""

    message: Any
    outputs: Mapping[str, Tensor]


def raise_if_not_offered(error: grpc.RpcError) -> None:
    """Turns UNIMPLEMENTED into its sentence.

    Raises:
        NotOffered: The status is UNIMPLEMENTED.
    """
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        raise NotOffered(error.details() or "UNIMPLEMENTED") from None


def refusal(call: Callable[[], Any], what: str = "") -> str:
    """The name of the status of a call that must not succeed.

    Args:
        call: Makes it.
        what: What should be refused, for the sentence, where the check's name does not say it.

    Raises:
        Fails: It succeeded, or the server went away or did not answer.
    """
    prefix = f"{what}: " if what else ""
    try:
        call()
    except grpc.RpcError as error:
        status: grpc.StatusCode = error.code()
        if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
            raise Fails(f"{prefix}{said(error)}") from None
        return str(status.name)
    raise Fails(f"{prefix}answered as if it were right")


def said(error: grpc.RpcError) -> str:
    """The status and the beginning of its sentence."""
    details = " ".join((error.details() or "").split())
    return f"{error.code().name}: {details[:117]}"


def _head(model: Model, version: str, more: Mapping[str, Any]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model.name, model_version=version, id=more.get("id", ""))
    for name in more.get("outputs", ()):
        request.outputs.add(name=name)
    return request


def raw_request(model: Model, tensors: Sequence[Tensor], version: str = "", **more: Any) -> pb.ModelInferRequest:
    """A request with raw contents; `more` may have an `id` and names of `outputs`."""
    request = _head(model, version, more)
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(tensor.raw())
    return request


def typed_request(model: Model, tensors: Sequence[Tensor], version: str = "", **more: Any) -> pb.ModelInferRequest:
    """A request with typed contents.

    Raises:
        NotTried: A tensor's datatype has none.
    """
    request = _head(model, version, more)
    for tensor in tensors:
        if tensor.datatype not in CONTENTS:
            raise NotTried(f"{tensor.datatype} has no typed contents")
        added = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        elements: Iterable[Any] = tensor.values.reshape(-1).tolist()
        getattr(added.contents, CONTENTS[tensor.datatype]).extend(elements)
    return request


def rpc_answer(message: Any) -> RpcAnswer:
    """The tensors of an answer, raw or typed.

    Raises:
        Fails: Contents are missing, or do not fit the shape.
    """
    raw = message.raw_output_contents
    if raw and len(raw) != len(message.outputs):
        raise Fails(f"{len(raw)} raw contents for {len(message.outputs)} outputs")
    outputs = {}
    for place, output in enumerate(message.outputs):
        if raw:
            tensor = from_raw(output.name, output.datatype, output.shape, raw[place])
        else:
            field = CONTENTS.get(output.datatype)
            if field is None:
                raise Fails(f"output {output.name} has the datatype {output.datatype} outside raw contents")
            tensor = from_plain(output.name, output.datatype, output.shape, getattr(output.contents, field))
        outputs[output.name] = tensor
    return RpcAnswer(message, outputs)


def rpc_model(message: Any) -> Model:
    """A model, from the message of its metadata."""
    return Model(
        message.name,
        tuple(message.versions),
        *(
            tuple(Spec(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in side)
            for side in (message.inputs, message.outputs)
        ),
    )
