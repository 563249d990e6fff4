"""The seams: what the engine asks of a backend, a policy, an image pipeline and an observer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from router.errors import BackendError, RouterError
from router.model import ImageSpec, ModelSpec, Tensor
from router.types import (
    UNCLASSIFIED,
    AttemptRecord,
    EncodedImage,
    Facts,
    InferenceResponse,
    Payload,
    Priority,
    Reply,
    nbytes,
)

if TYPE_CHECKING:
    from router.plan import Plan
    from router.snapshot import Snapshot


class Policy(Protocol):
    """Decides. Implementations derive from it and are frozen dataclasses, whose fields are their options."""

    def plan(self, facts: Facts, snapshot: Snapshot) -> Plan:
        """Says which backends to try, in which order, and why.

        Pure: the same arguments always give the same plan, and nothing else is looked at.

        Args:
            facts: What is known of the request.
            snapshot: What is known of the world.

        Returns:
            A plan whose attempts name only backends that `snapshot.candidates(facts)` lists. A plan without
            attempts carries the reason why nothing can be tried.
        """
        ...

    def problem_with(self, model: ModelSpec) -> str | None:
        """Why this policy, with these options, cannot serve this model; None if it can."""
        return None


@dataclass(slots=True)
class Call:
    """One call on one backend.

    Args:
        payload: Tensors as the model takes them, or an image if the variant takes those.
        payload_bytes: Its size.
        rows: How many inferences it asks for.
        request_id: For the backend's own logs.
        parameters: The caller's parameters.
        late: Told the seconds that it took if its answer comes when nobody waits for it any more; a backend that cannot
            tell does not call it.
        data_class: What kind of data it carries, for a server that decides by it where the data may go.
        priority: How urgent it is, for a server that has more to do than it can.
        alone: Whether it must not share a call with others.
    """

    payload: Payload
    payload_bytes: int
    rows: int
    request_id: str
    parameters: Mapping[str, object]
    late: Callable[[float], None] | None = None
    data_class: str = UNCLASSIFIED
    priority: Priority = Priority.NORMAL
    alone: bool = False


def synthetic_call(model: ModelSpec) -> Call:
    """A call on made-up input, for warm-ups and probes: no user's data is used, nor has any a part in how it ends."""
    inputs = model.synthetic_inputs()
    return Call(inputs, nbytes(inputs), 1, "synthetic", {}, alone=True)


class Servable(Protocol):
    """One model opened on one backend, ready to be asked."""

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Runs the model once.

        Safe to call concurrently. When the calling task is cancelled, whatever was started is abandoned or
        stopped, and nothing of it is left behind.

        Args:
            call: What to infer.
            deadline: Monotonic seconds; nobody waits for an answer after it.

        Returns:
            Outputs with the dtypes and shapes that the model's spec declares.

        Raises:
            FailedTogether: It was sent together with others; it is asked once more, `alone`.
            NotBegun: A server that was there would not begin it; it is asked once more, over another connection.
            BackendError: In another of its kinds; no other exception.
        """
        ...

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Asks whether it would answer now.

        Args:
            deadline: Monotonic seconds.
            synthetic: Run a real inference on made-up input, rather than ask the server for its opinion. Only after
                the latter was good.

        Returns:
            The answer to the made-up input, whose times are the first estimate of its latency; else None.

        Raises:
            BackendError: It would not.
        """
        ...

    async def close(self) -> None:
        """Frees what it holds. Nothing is in flight when this is called."""
        ...


@runtime_checkable
class RunsInline(Protocol):
    """A servable that can run its model on the event loop itself, where that is quicker than to wait for it."""

    def runs_inline(self, calls: int, payload_bytes: int) -> int:
        """Whether it would now: nothing that runs already is to be waited for, and the loop not to be held up.

        Args:
            calls: How many calls there are.
            payload_bytes: The size of the largest.

        Returns:
            How many of them it would run at a time; 0 if it would not.
        """
        ...

    def infer_inline(self, calls: Sequence[Call], deadlines: Sequence[float]) -> Sequence[Reply | BackendError]:
        """Runs the model on each of these, on several at a time where it can.

        Args:
            calls: What to infer; tensors.
            deadlines: Of each, monotonic seconds; if it has passed when its run is due, there is none.

        Returns:
            What came of each, in the same order; an error is returned, not raised, and not `FailedTogether`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a model that runs in this process runs on, and which version of it that is.

    Args:
        provider: The execution provider that runs most of it.
        missing: Those that the policy file prefers to it, and that do not run it.
        sha256: Digest of the model file in force.
        golden: Whether it answered golden inputs before it was put in force.
        swaps: How often another version took over since it was opened.
        refusals: How often another version was refused.
        problem: Why the file on disk is not in force; empty if it is.
    """

    provider: str
    missing: tuple[str, ...] = ()
    sha256: str = ""
    golden: bool = False
    swaps: int = 0
    refusals: int = 0
    problem: str = ""


@runtime_checkable
class RunsHere(Protocol):
    """A servable whose model runs in this process, and that says on what."""

    @property
    def runtime(self) -> Runtime:
        """What it runs on now."""
        ...


class VariantOptions(Protocol):
    """What a policy file says about a model on one kind of backend; a frozen dataclass."""

    @property
    def label(self) -> str:
        """How the variant is called in routes and metrics."""
        ...

    @property
    def takes_image(self) -> bool:
        """Whether it can be sent an encoded image, and runs the model's stages itself."""
        ...


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend may need to know of the process it lives in.

    Args:
        models_dir: Where relative model files are looked up.
        cache_dir: Where what can be made again may be kept; None for nowhere.
        root: The root of the file system in which the kernel tells of memory and processor.
    """

    models_dir: Path
    cache_dir: Path | None = None
    root: Path = Path("/")


class Backend(Protocol):
    """One way to run models: owns what its servables share, such as a channel or a thread pool.

    The class itself is what is registered; it names the dataclasses of its options, and says whether its models run on
    this very device: those are spared when it gets too warm.
    """

    Options: ClassVar[type]
    Variant: ClassVar[type]
    on_device: ClassVar[bool]

    def __init__(self, options: Any, context: BackendContext) -> None:
        """Remembers its options. Touches neither network nor disk."""
        ...

    async def open(self, model: ModelSpec, variant: Any) -> Servable:
        """Makes a model ready, warm-up included. Does not need the network to be up.

        Raises:
            BackendError: It cannot work as things are: a missing file, the wrong inputs. It is tried again later.
        """
        ...

    async def close(self) -> None:
        """Frees what is shared. All servables are closed before."""
        ...


class Preprocess(Protocol):
    """Runs a model's image stages."""

    def __call__(self, image: EncodedImage, spec: ImageSpec, model: ModelSpec) -> dict[str, Tensor]:
        """Turns an image file into the model's input tensors. Blocking; called in a thread.

        Raises:
            UnprocessableImage: It cannot be decoded, or exceeds the declared bounds.
        """
        ...


class Observer(Protocol):
    """Learns what happened: metrics today, audit and decision log in time. Must not block or raise."""

    def planned(self, seconds: float) -> None:
        """A request was planned, in this many seconds."""
        ...

    def residency_blocked(self, backend: str, data_class: str) -> None:
        """The guard took a backend out of a plan."""
        ...

    def answered(self, response: InferenceResponse) -> None:
        """A request got its answer."""
        ...

    def failed(self, model: str, policy: str, error: RouterError, attempts: Sequence[AttemptRecord]) -> None:
        """A request that named a known model ended in an error."""
        ...

    def hung_up(self, model: str, policy: str, attempts: Sequence[AttemptRecord]) -> None:
        """The client of a request went away before the answer."""
        ...
