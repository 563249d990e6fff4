"""The kit itself: a right server passes every check, one that is wrong in one way fails the check that is meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import grpc
import httpx
import pytest

from conformance import extensions, manners
from conformance.catalogue import CHECKS
from conformance.check import Row
from conformance.discovery import Unreachable, find_rest, find_rpc
from conformance.refusals import WRONG
from conformance.rest import Rest
from conformance.rpc import CHANNEL_OPTIONS, Rpc
from conformance.run import run
from conformance.tensors import Model, Spec
from conformance.verdict import Status, Verdict
from tests.contract.oip_server import SUM, RestServer
from tests.contract.oip_servicer import rpc_server
from tests.peers.conformance_table import DOCUMENT, checks_block

REST_REFUSALS = [wrong.name for wrong in WRONG if wrong.rest is not None]
RPC_REFUSALS = [wrong.name for wrong in WRONG if wrong.rpc is not None]

# A quirk, and the checks that it fails: one, but where a check asks for a part of what another one asks.
REST_QUIRKS = {
    "down /v2/health/live": {"live"},
    "down /v2/health/ready": {"ready"},
    "empty-bodies": {"ready-body"},
    "nameless": {"server-metadata"},
    "without /v2/": {"trailing-slash"},
    "unready": {"model-ready"},
    "no-platform": {"model-metadata"},
    "other-version": {"model-version"},
    "no-model-name": {"infer"},
    "no-nesting": {"data-nested"},
    "another-version": {"infer-version"},
    "no-id": {"id"},
    "no-parameters": {"parameters"},
    "declares-another": {"outputs-declared"},
    "unselected": {"outputs-selected"},
    "reversed": {"outputs-order"},
    "one-row": {"rows"},
    "fails spare": {"every-model"},
    "fails half": {"every-model", "fp16"},
    "no-texts": {"every-model", "bytes", "binary-bytes"},
    "zeroes-b": {"binary-request"},
    "binary-as-json": {"binary-response"},
    "no-mixing": {"binary-mixed"},
    "request-beats-output": {"binary-per-output"},
    "no-default": {"binary-default"},
    "bare-texts": {"binary-bytes"},
    "mends-lengths": {"binary-header-length"},
    "leftovers": {"binary-sizes"},
    "no-gzip": {"gzip-request"},
    "no-deflate": {"deflate-request"},
    "always-gzip": {"compressed-answer"},
    "details unknown-metadata": {"unknown-metadata"},
    "always-ready": {"unknown-ready"},
    "400 unknown-model": {"not-found"},
    "500 wrong-count": {"callers-fault"},
    "details unknown-path": {"unknown-path"},
    "details wrong-verb": {"wrong-verb"},
    "404 wrong-verb": {"wrong-verb"},
    "plain-errors": {"content-type"},
    "texts-in-config": {"model-config"},
    "texts-in-statistics": {"statistics"},
    "uncounted": {"statistics"},
    "without /v2/repository/index": {"repository-index"},
    "ghosts": {"repository-index"},
    **{f"details {name}": {name} for name in REST_REFUSALS},
    **{f"accepts {name}": {name} for name in REST_REFUSALS if name != "unknown-model"},
    "accepts unknown-model": {"unknown-model", "not-found"},
    "accepts unknown-metadata": {"unknown-metadata", "not-found"},
}
RPC_QUIRKS = {
    "not-live": {"live"},
    "not-ready": {"ready"},
    "nameless": {"server-metadata"},
    "unready": {"model-ready"},
    "unheard-of-datatype": {"model-metadata", "outputs-declared"},
    "other-version": {"model-version"},
    "no-model-name": {"infer"},
    "contents-beside-raw": {"raw-contents"},
    "another-version": {"infer-version"},
    "no-id": {"id", "stream"},
    "no-parameters": {"parameters"},
    "declares-another": {"outputs-declared"},
    "unselected": {"outputs-selected"},
    "reversed": {"outputs-order"},
    "one-row": {"rows"},
    "fails spare": {"every-model"},
    "fails half": {"every-model", "fp16"},
    "bare-texts": {"bytes", "every-model", "outputs-order"},
    "accepts unknown-metadata": {"unknown-metadata", "not-found"},
    "always-ready": {"unknown-ready"},
    "invalid unknown-model": {"not-found"},
    "internal wrong-count": {"callers-fault"},
    "breaks-at-deadlines": {"deadline"},
    "breaks-at-large": {"large-message"},
    "half-a-config": {"model-config"},
    "uncounted": {"statistics"},
    "ghosts": {"repository-index"},
    "ends-streams": {"stream"},
    "not-serving": {"grpc-health"},
    "lists-nothing": {"grpc-reflection"},
    **{f"accepts {name}": {name} for name in RPC_REFUSALS if name != "unknown-model"},
    "accepts unknown-model": {"unknown-model", "not-found"},
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here counts late."""
    monkeypatch.setattr(extensions, "PAUSES_S", (0.0,))


def rest_side(quirk: str = "") -> Rest:
    """The stand-in, asked for its model `sum`."""
    http = httpx.Client(
        base_url="http://server",
        transport=httpx.MockTransport(RestServer(quirk)),
        headers={"accept-encoding": "identity"},
    )
    return find_rest(http, "sum")


@contextmanager
def rpc_side(quirk: str = "") -> Iterator[Rpc]:
    """Same over gRPC, on a port of its own."""
    with rpc_server(quirk) as address, grpc.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        yield find_rpc(channel, address, 10.0, (), rest_side())


def ended(rows: list[Row], side: str, *statuses: Status) -> set[str]:
    """The checks that ended so."""
    verdicts: dict[str, Verdict | None] = {row.check.name: getattr(row, side) for row in rows}
    return {name for name, verdict in verdicts.items() if verdict is not None and verdict.status in statuses}


def rest_rows(quirk: str) -> list[Row]:
    return list(run([check for check in CHECKS if check.rest is not None], rest_side(quirk), None))


def rpc_rows(quirk: str) -> list[Row]:
    with rpc_side(quirk) as rpc:
        return [
            Row(row.check, None, row.rpc)
            for row in run([check for check in CHECKS if check.rpc is not None], rest_side(), rpc)
        ]


def test_names_are_unique() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_a_right_server_passes_everything() -> None:
    with rpc_side() as rpc:
        rows = list(run(CHECKS, rest_side(), rpc))
    for side, has in (("rest", "rest"), ("rpc", "rpc")):
        assert ended(rows, side, Status.PASS) == {check.name for check in CHECKS if getattr(check, has) is not None}


@pytest.mark.parametrize("quirk", REST_QUIRKS)
def test_a_quirk_over_rest_fails_the_check_that_is_meant(quirk: str) -> None:
    assert ended(rest_rows(quirk), "rest", Status.FAIL) == REST_QUIRKS[quirk]


@pytest.mark.parametrize("quirk", RPC_QUIRKS)
def test_a_quirk_over_grpc_fails_the_check_that_is_meant(quirk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if quirk == "breaks-at-deadlines":
        monkeypatch.setattr(manners, "BRIEF_S", 0.9)  # long enough to arrive for certain
    assert ended(rpc_rows(quirk), "rpc", Status.FAIL) == RPC_QUIRKS[quirk]


def test_every_check_can_fail() -> None:
    assert set().union(*REST_QUIRKS.values()) == {check.name for check in CHECKS if check.rest is not None}
    assert set().union(*RPC_QUIRKS.values()) == {check.name for check in CHECKS if check.rpc is not None}


BINARY = {check.name for check in CHECKS if check.name.startswith("binary-")} | {"fp16"}
FOR_LOADS = {"model-config", "statistics", "repository-index"}


@pytest.mark.parametrize(
    ("quirk", "missing"),
    [("no-extensions", BINARY), ("bare", BINARY | FOR_LOADS), ("unknown-gzip", {"gzip-request"})],
)
def test_what_is_not_offered_over_rest_is_not_failed(quirk: str, missing: set[str]) -> None:
    rows = rest_rows(quirk)
    assert ended(rows, "rest", Status.NOT_OFFERED) == missing
    assert not ended(rows, "rest", Status.FAIL)


def test_what_is_not_offered_over_grpc_is_not_failed() -> None:
    rows = rpc_rows("bare")
    assert ended(rows, "rpc", Status.NOT_OFFERED) == FOR_LOADS | {"stream", "grpc-health", "grpc-reflection"}
    assert not ended(rows, "rpc", Status.FAIL)


def test_what_is_named_but_not_there_is_failed() -> None:
    assert ended(rest_rows("less-than-named"), "rest", Status.FAIL) == {"model-config", "statistics"}


def test_a_model_may_want_other_bytes_than_texts() -> None:
    rows = rest_rows("wants-pictures")
    assert ended(rows, "rest", Status.NOT_TRIED) == {"bytes", "binary-bytes"}
    assert not ended(rows, "rest", Status.FAIL)
    rows = rpc_rows("wants-pictures")
    assert ended(rows, "rpc", Status.NOT_TRIED) == {"bytes"}
    assert not ended(rows, "rpc", Status.FAIL)


def test_a_check_that_breaks_does_not_end_the_run() -> None:
    def dead(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/infer"):
            raise httpx.ReadTimeout("dead", request=request)
        return RestServer()(request)

    rest = find_rest(httpx.Client(base_url="http://server", transport=httpx.MockTransport(dead)), "sum")
    rows = list(run(CHECKS, rest, None))
    assert len(rows) == len(CHECKS)
    verdicts = {row.check.name: row.rest for row in rows}
    assert verdicts["infer"] == Verdict(Status.FAIL, "no answer in time")
    assert verdicts["live"] == Verdict(Status.PASS)


@pytest.mark.parametrize(
    ("quirk", "named", "sentence"),
    [
        ("without /v2/repository/index", None, "name one with --model NAME"),
        ("", "nothing", "The metadata of nothing cannot be read: 404"),
    ],
)
def test_a_model_that_cannot_be_found_is_said(quirk: str, named: str | None, sentence: str) -> None:
    http = httpx.Client(base_url="http://server", transport=httpx.MockTransport(RestServer(quirk)))
    with pytest.raises(Unreachable, match=sentence):
        find_rest(http, named)


def test_a_model_of_halves_is_not_asked_in_json() -> None:
    http = httpx.Client(base_url="http://server", transport=httpx.MockTransport(RestServer()))
    rows = list(run(CHECKS, find_rest(http, "half"), None))
    assert not ended(rows, "rest", Status.FAIL)
    assert "infer" in ended(rows, "rest", Status.NOT_TRIED)


SHAPED = {"vast-shape", "negative-shape"}


@pytest.mark.parametrize(
    ("shapes", "not_tried"),
    [
        ([()], SHAPED),
        ([(0,)], SHAPED | {"wrong-count"}),
        ([(-1, 0)], SHAPED | {"wrong-count"}),
        ([(), (0,)], SHAPED),
        ([(), (0,), (2,)], set()),
    ],
)
def test_a_mistake_that_no_input_has_room_for_is_not_tried(shapes: list[tuple[int, ...]], not_tried: set[str]) -> None:
    """Taken away from nothing, or put beside a 0, it would be no mistake, and a right server would be called wrong."""
    inputs = tuple(Spec(f"in{place}", "FP32", shape) for place, shape in enumerate(shapes))
    model = Model("narrow", ("1",), inputs, (Spec("out", "FP32", (-1,)),))
    refuses = httpx.MockTransport(lambda _: httpx.Response(400, json={"error": "no"}))
    rest = Rest(httpx.Client(base_url="http://server", transport=refuses), frozenset(), (model,), model)
    checks = [check for check in CHECKS if check.name in SHAPED | {"wrong-count"}]
    with rpc_side() as right:  # it knows no such model, and so refuses whatever is asked of it
        rows = list(run(checks, rest, replace(right, models=(model,), subject=model)))
    for side in ("rest", "rpc"):
        assert ended(rows, side, Status.NOT_TRIED) == not_tried
        assert not ended(rows, side, Status.FAIL)


def test_the_subject_is_a_model_that_takes_numbers_and_answers() -> None:
    http = httpx.Client(base_url="http://server", transport=httpx.MockTransport(RestServer("fails sum")))
    assert find_rest(http, None).subject.name == "spare"
    http = httpx.Client(base_url="http://server", transport=httpx.MockTransport(RestServer()))
    assert find_rest(http, None).subject.name == "sum"


def test_the_documentation_has_every_check_in_its_own_words() -> None:
    assert f"<!-- checks -->\n{checks_block()}\n<!-- end of checks -->" in DOCUMENT.read_text()


@pytest.mark.parametrize(
    "answer",
    [[], {}, [1], [{"name": 1}], {"models": 3}, {"models": [None]}, "text", None, [[]], {"inputs": [1]}, {"name": []}],
    ids=repr,
)
def test_a_server_that_answers_nonsense_is_told_or_failed(answer: object) -> None:
    """Whatever is answered everywhere: a sentence, or checks that fail, and never a traceback."""
    http = httpx.Client(
        base_url="http://server", transport=httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    )
    with pytest.raises(Unreachable):
        find_rest(http, None)
    rows = list(run(CHECKS, Rest(http, frozenset({"binary_tensor_data"}), (SUM,), SUM), None))
    required = {row.check.name for row in rows if row.breaks_the_protocol}
    assert {"server-metadata", "model-metadata", "infer", *REST_REFUSALS} <= required
