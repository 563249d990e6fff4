"""What the Open Inference Protocol says of models: in the form that Triton's clients, and protobuf, read."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2

from app import oip_views
from app.codec.route_parameters import route_parameters
from app.metrics import Metrics
from app.statistics import Statistics
from router.deployment import ModelEntry
from router.engine import Engine
from router.errors import BackendTimeout, Outcome, UnknownModel
from router.model import DTYPES, ModelSpec, TensorSpec
from router.types import AttemptRecord, InferenceResponse, Route
from tests.unit.app.codec.conftest import engine  # noqa: F401 the fixture
from tests.unit.app.codec.front import SPECS
from tests.unit.samples import MODEL, rows


def answered(
    *attempts: AttemptRecord, firsts: tuple[float, ...] = (0.9,), model: ModelSpec = MODEL
) -> InferenceResponse:
    route = Route("p", "edge", "v1", False, "because", list(attempts), 0.05)
    tensor = rows(*firsts)["x"]
    return InferenceResponse("r", model, {"scores": tensor, "row": tensor[:, 0]}, route)


def record(backend: str, outcome: Outcome = Outcome.SUCCESS, error: str | None = None, **more: Any) -> AttemptRecord:
    return AttemptRecord(backend, outcome, error, **more)


def test_metadata() -> None:
    assert oip_views.model_metadata(SPECS["two"]) == {
        "name": "two",
        "versions": ["1"],
        "platform": "hybrid-router",
        "inputs": [
            {"name": "a", "datatype": "INT64", "shape": [-1]},
            {"name": "b", "datatype": "BOOL", "shape": [-1, 2]},
        ],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    }


def test_a_configuration_leaves_the_batch_out_of_the_dimensions() -> None:
    config = oip_views.model_config(ModelEntry(SPECS["two"], 0.05, 0.5, {}))
    assert config["max_batch_size"] > 0
    assert [tensor["dims"] for tensor in config["input"]] == [[], [2]]
    fixed = ModelSpec("m", "1", {"x": TensorSpec("string", (3,))}, {"y": TensorSpec("bfloat16", (-1, 3))})
    config = oip_views.model_config(ModelEntry(fixed, 0.05, 0.5, {}))
    assert config["max_batch_size"] == 0
    assert (config["input"][0]["data_type"], config["input"][0]["dims"]) == ("TYPE_STRING", [3])
    assert (config["output"][0]["data_type"], config["output"][0]["dims"]) == ("TYPE_BF16", [-1, 3])


def test_protobuf_reads_all_of_it(engine: Engine) -> None:  # noqa: F811
    spec = ModelSpec(
        "m", "1", {dtype: TensorSpec(dtype, (-1, 2)) for dtype in DTYPES}, {"y": TensorSpec("bool", (-1,))}
    )
    statistics = Statistics(lambda: 17, Metrics())
    for document, message in (
        (oip_views.server_metadata(), service_pb2.ServerMetadataResponse()),
        (oip_views.model_metadata(spec), service_pb2.ModelMetadataResponse()),
        (oip_views.model_config(ModelEntry(spec, 0.05, 0.5, {})), model_config_pb2.ModelConfig()),
        (oip_views.model_statistics(statistics, engine, None, None), service_pb2.ModelStatisticsResponse()),
        ({"models": oip_views.repository_index(engine, False)}, service_pb2.RepositoryIndexResponse()),
    ):
        json_format.ParseDict(document, message)


def test_a_model_without_a_backend_is_listed_as_unavailable(engine: Engine) -> None:  # noqa: F811
    assert oip_views.repository_index(engine, True) == []
    first = oip_views.repository_index(engine, False)[0]
    assert first == {
        "name": "one",
        "version": "1",
        "state": "UNAVAILABLE",
        "reason": "no backend can answer one at present",
    }


def test_what_is_not_there_is_said_to_be_unknown(engine: Engine) -> None:  # noqa: F811
    statistics = Statistics(lambda: 17, Metrics())
    for model, version in (("none", None), ("one", "2")):
        with pytest.raises(UnknownModel):
            oip_views.model_statistics(statistics, engine, model, version)
        with pytest.raises(UnknownModel):
            oip_views.model_entry(engine, model, version)


def test_each_request_is_counted_once_with_its_rows_and_times() -> None:
    metrics = Metrics()
    statistics = Statistics(lambda: 1234, then=metrics)
    statistics.planned(0.1)
    lost = record("cloud", Outcome.DROPPED, "backend-timeout", network_s=9.0)
    won = record("edge", queue_s=0.001, compute_s=0.02)
    statistics.answered(answered(lost, won, firsts=(0.1, 0.2, 0.3)))
    statistics.answered(answered(won))
    statistics.failed("m", "p", BackendTimeout("late"), [lost])
    statistics.hung_up("m", "p", [won])
    statistics.residency_blocked("cloud", "phi")
    counts = statistics.of("m")
    assert (counts.answered, counts.failed, counts.rows, counts.executions) == (2, 1, 4, 2)
    assert counts.answered_s == pytest.approx(0.1)
    assert counts.failed_s == pytest.approx(9.0)
    assert counts.queue_s == pytest.approx(0.002)
    assert counts.compute_s == pytest.approx(0.04)
    assert counts.last_ms == 1234
    assert statistics.of("another").answered == 0
    told = {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }
    requests = {
        outcome: told["hybrid_router_requests_total", outcome] for outcome in ("ok", "backend-timeout", "hung-up")
    }
    assert requests == {"ok": 2, "backend-timeout": 1, "hung-up": 1}
    assert told["hybrid_router_decision_duration_seconds_count", None] == 1
    assert told["hybrid_router_residency_blocks_total", None] == 1


def test_a_model_that_changes_is_counted_on() -> None:
    statistics = Statistics(lambda: 0, Metrics())
    whole = ModelSpec("m", "2", {"x": TensorSpec("float32", (2,))}, {"scores": TensorSpec("float32", (2,))})
    statistics.answered(answered(firsts=(0.1, 0.2)))
    statistics.answered(answered(firsts=(0.1, 0.2), model=whole))
    assert statistics.of("m").rows == 3


def test_the_route_is_written_in_scalars() -> None:
    lost = record("cloud", Outcome.DROPPED, "backend-timeout", bytes_out=100, cost_usd=0.5)
    won = record("edge", cost_usd=0.25)
    assert route_parameters(answered(lost, won).route) == {
        "backend": "edge",
        "policy": "p",
        "variant": "v1",
        "degraded": False,
        "latency_ms": 50.0,
        "cost_usd": 0.75,
        "bytes_out": 100,
        "reason": "because",
        "attempts": "cloud: backend-timeout, edge: answered",
    }
