"""Making the checks, one after the other. One that breaks does not end the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import grpc
import httpx

from conformance.check import Check, Row
from conformance.rest import Rest
from conformance.rpc import Rpc, said
from conformance.verdict import Ended, Status, Verdict

Side = TypeVar("Side", Rest, Rpc)


def run(checks: Iterable[Check], rest: Rest, rpc: Rpc | None) -> Iterator[Row]:
    """Makes the checks.

    Args:
        checks: Which.
        rest: The server over REST.
        rpc: The same over gRPC, if it is to be asked.

    Yields:
        What came of each, as soon as it is known.
    """
    for check in checks:
        yield Row(
            check,
            None if check.rest is None else _verdict(check.rest, rest),
            None if check.rpc is None or rpc is None else _verdict(check.rpc, rpc),
        )


def _verdict(check: Callable[[Side], str | None], side: Side) -> Verdict:
    try:
        return Verdict(Status.PASS, check(side) or "")
    except Ended as ended:
        return Verdict(ended.status, str(ended))
    except httpx.TimeoutException:
        return Verdict(Status.FAIL, "no answer in time")
    except httpx.HTTPError as error:
        return Verdict(Status.FAIL, f"no answer: {error or type(error).__name__}")
    except grpc.RpcError as error:
        return Verdict(Status.FAIL, said(error))
    except Exception as error:  # whatever a check trips over is the server's answer
        return Verdict(Status.FAIL, f"the answer is not in the protocol's form: {error!r}")
