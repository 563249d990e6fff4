"""Strategies that make up requests and worlds, for the properties of policies, plans and the guard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from router.breaker import BreakerState
from router.device import Strain
from router.latency import LatencyPrediction, Quantiles
from router.model import ImageSpec
from router.plan import AcceptIf, Attempt
from router.snapshot import ModelView, Snapshot, TargetView
from router.stages import Decode, Grayscale, Resize
from router.types import ON_PREMISES, Facts

SITES = (ON_PREMISES, "cloud", "other-cloud")
CLASSES = ("unclassified", "phi", "nowhere")
IMAGE_SPEC = ImageSpec("x", (Decode(), Grayscale(), Resize(8, 8)))

seconds = st.floats(0, 1)


@st.composite
def predictions(draw: st.DrawFn) -> LatencyPrediction:
    """A latency prediction that keeps its invariants."""
    network, compute, total = (Quantiles(*sorted(draw(st.tuples(seconds, seconds, seconds)))) for _ in range(3))
    completed = draw(st.sampled_from((None, total, compute)))
    return LatencyPrediction(network, compute, total, draw(st.floats(0, 1e-6)), draw(st.integers(1, 256)), completed)


@st.composite
def target_views(draw: st.DrawFn, backend: str, model: str) -> TargetView:
    """A model on a backend, up or down, known or not."""
    state = draw(st.sampled_from(BreakerState))
    return TargetView(
        backend=backend,
        model=model,
        variant=f"{model}@{backend}",
        site=draw(st.sampled_from(SITES)),
        takes_image=draw(st.booleans()),
        breaker=state,
        problem="" if state is BreakerState.CLOSED else "it is down",
        retry_at=draw(st.floats(0, 10)),
        latency=draw(st.none() | predictions()),
        in_flight=draw(st.integers(0, 9)),
        usd_per_inference=draw(st.floats(0, 1)),
        usd_per_byte_out=draw(st.floats(0, 1)),
        spent=draw(st.booleans()),
        strain=draw(st.sampled_from(Strain)),
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Facts, Snapshot]:
    """A snapshot of up to three models on up to four backends, and the facts of a request for one of them."""
    names = draw(st.lists(st.sampled_from(("a", "b", "c")), min_size=1, unique=True))
    models: dict[str, ModelView] = {}
    targets: dict[tuple[str, str], TargetView] = {}
    for name in names:
        backends = draw(st.lists(st.sampled_from(("w", "x", "y", "z")), min_size=1, unique=True))
        views = tuple(draw(target_views(backend, name)) for backend in backends)
        models[name] = ModelView(draw(st.floats(0.001, 1)), draw(st.sampled_from((None, IMAGE_SPEC))), views)
        targets |= {(name, view.backend): view for view in views}
    sites = {
        "unclassified": frozenset(SITES),
        "phi": draw(st.frozensets(st.sampled_from(SITES))),
        "nowhere": frozenset[str](),
    }
    model = draw(st.sampled_from(names))
    image = models[model].image is not None and draw(st.booleans())
    facts = Facts(model, draw(st.sampled_from(CLASSES)), 1 << draw(st.integers(0, 24)), image)
    incumbent = draw(st.sampled_from(("w", "x", "y", "z", "gone", None)))
    incumbents = {} if incumbent is None else {facts: incumbent}
    return facts, Snapshot(draw(st.integers(1, 9)), draw(st.floats(0, 10)), models, targets, sites, incumbents)


def attempts(backends: tuple[str, ...]) -> st.SearchStrategy[Attempt]:
    """Any attempt on any of these, sensible or not."""
    ends: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"accept_if": st.builds(AcceptIf, st.floats(0, 1))}),
        st.fixed_dictionaries({"hedge_after": st.floats(0, 1)}),
    )
    plain = st.builds(
        Attempt,
        st.sampled_from(backends),
        st.sampled_from(("v1", "no-such-variant")),
        stages=st.sampled_from(((), ("decode",), ("nonsense",))),
        degraded=st.booleans(),
        reserve_s=st.floats(0, 1),
    )
    return st.builds(lambda attempt, end: replace(attempt, **end), plain, ends)
