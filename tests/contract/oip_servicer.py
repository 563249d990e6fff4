"""The right server of oip_server.py over gRPC, with quirks of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2_grpc
from tritonclient.grpc import service_pb2 as pb

from conformance.rpc import CONTENTS
from conformance.tensors import Tensor, from_plain, from_raw
from conformance.verdict import Fails
from tests.contract.oip_server import MODELS, Core, Refusal

LARGE = 1_000_000
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
NOT_FOUND = ("unknown-model", "unknown-version")


class RpcServer(Core, service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The methods, named as the protocol names them."""

    broken = False

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return pb.ServerLiveResponse(live=self.quirk != "not-live")

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return pb.ServerReadyResponse(ready=self.quirk != "not-ready")

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return pb.ServerMetadataResponse(name="" if self.quirk == "nameless" else "right", version="1")

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        there = request.name in MODELS and not (self.quirk == "unready" and not request.version)
        return pb.ModelReadyResponse(ready=there or (self.quirk == "always-ready" and request.name not in MODELS))

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        if self.quirk == "accepts unknown-metadata" and request.name not in MODELS:
            return pb.ModelMetadataResponse()
        try:
            document = self.metadata(self.model(request.name, request.version))
        except Refusal as refusal:
            self._abort(str(refusal), context)
        if self.quirk == "unheard-of-datatype" and request.name == "sum":
            document["outputs"][0]["datatype"] = "FLOAT"
        if self.quirk == "other-version" and request.version:
            document["name"] = "other"
        return pb.ModelMetadataResponse(**document)

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        model = MODELS[request.name]
        self._offer(context)
        config = model_config_pb2.ModelConfig(name=model.name, max_batch_size=8)
        for spec in model.inputs:
            config.input.add(name=spec.name, data_type=model_config_pb2.TYPE_FP32, dims=spec.shape)
        for spec in model.outputs if self.quirk != "half-a-config" else ():
            config.output.add(name=spec.name, data_type=model_config_pb2.TYPE_FP32, dims=spec.shape)
        return pb.ModelConfigResponse(config=config)

    def ModelStatistics(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._offer(context)
        answer = pb.ModelStatisticsResponse()
        answer.model_stats.add(name=request.name, version="1", inference_count=self.counts.get(request.name, 0))
        return answer

    def RepositoryIndex(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self._offer(context)
        answer = pb.RepositoryIndexResponse()
        for name in MODELS:
            if self.quirk != "ghosts" or name != "sum":
                answer.models.add(name=name)
        return answer

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        if self.quirk == "breaks-at-deadlines" and context.time_remaining() < 1.0:
            self.broken = True
        elif self.broken:
            self.broken = False
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
        if self.quirk == "breaks-at-large" and request.ByteSize() > LARGE:
            context.abort(grpc.StatusCode.INTERNAL, "too large")
        if request.ByteSize() > LARGE:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
        try:
            return self._infer(request)
        except Refusal as refusal:
            if self.quirk == f"accepts {refusal}":
                return pb.ModelInferResponse()
            self._abort(str(refusal), context)

    def ModelStreamInfer(self, requests: Iterable[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        self._offer(context)
        for request in requests:
            try:
                yield pb.ModelStreamInferResponse(infer_response=self._infer(request))
            except Refusal as refusal:
                yield pb.ModelStreamInferResponse(error_message=str(refusal))
                if self.quirk == "ends-streams":
                    return

    def _offer(self, context: grpc.ServicerContext) -> None:
        if self.quirk == "bare":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is none")

    def _abort(self, kind: str, context: grpc.ServicerContext) -> None:
        status = grpc.StatusCode.NOT_FOUND if kind in NOT_FOUND else grpc.StatusCode.INVALID_ARGUMENT
        if self.quirk == f"internal {kind}":
            status = grpc.StatusCode.INTERNAL
        if self.quirk == f"invalid {kind}":
            status = grpc.StatusCode.INVALID_ARGUMENT
        context.abort(status, kind)

    def _infer(self, request: Any) -> Any:
        model = self.model(request.model_name, request.model_version)
        raw = list(request.raw_input_contents)
        if self.quirk == "no-parameters" and "conformance_note" in request.parameters:
            raise Refusal("quirk")
        if self.quirk == f"fails {model.name}":
            raise Refusal("quirk")
        if raw and any(it.HasField("contents") for it in request.inputs):
            raise Refusal("mixed-contents")
        self.claims(model, {it.name: (it.datatype, list(it.shape)) for it in request.inputs})
        tensors = {it.name: self._tensor(it, raw[place] if raw else None) for place, it in enumerate(request.inputs)}
        return self._encode(request, self.run(model, tensors, [it.name for it in request.outputs]), bool(raw))

    def _tensor(self, it: Any, raw: bytes | None) -> Tensor:
        try:
            if raw is not None:
                return from_raw(it.name, it.datatype, it.shape, raw)
            return from_plain(it.name, it.datatype, it.shape, getattr(it.contents, CONTENTS[it.datatype]))
        except (Fails, ValueError):
            raise Refusal("wrong-count") from None

    def _encode(self, request: Any, outputs: list[Tensor], raw: bool) -> Any:
        answer = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        if self.quirk == "no-id":
            answer.id = ""
        if self.quirk == "no-model-name" and not raw:
            answer.model_name = ""
        if self.quirk == "another-version" and request.model_version:
            answer.model_version = "2"
        for tensor in outputs:
            added = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            if self.quirk == "contents-beside-raw":
                added.contents.SetInParent()
            data = tensor.raw()
            if self.quirk == "bare-texts" and tensor.datatype == "BYTES":
                data = b"".join(tensor.values.flat)
            answer.raw_output_contents.append(data)
        return answer


class _Others(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Health and reflection, in bytes."""

    def __init__(self, quirk: str) -> None:
        self._quirk = quirk
        self._health = NOT_SERVING if quirk == "not-serving" else SERVING
        self._services = b"nothing" if quirk == "lists-nothing" else b"inference.GRPCInferenceService"

    def service(self, details: Any) -> Any:
        if self._quirk == "bare":
            return None
        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: self._health)
        if details.method == "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: (self._services for _ in requests))
        return None


@contextmanager
def rpc_server(quirk: str) -> Iterator[str]:
    """Serves it on a free port of loopback; gives the address."""
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, options=[("grpc.max_receive_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(RpcServer(quirk), server)
        server.add_generic_rpc_handlers((_Others(quirk),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
