"""How a call is answered: bytes in, bytes out, and every error as a gRPC status with a sentence.

Methods get the bytes of a message rather than the message, because what cannot be read must be the caller's fault, and
gRPC itself would call it an unknown error of the server's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from router.errors import InternalError, RouterError

log = logging.getLogger(__name__)

CountError = Callable[[RouterError], None]
Method = Callable[[bytes, Any], Awaitable[bytes]]

MAX_DETAILS = 1000
"""Characters of a sentence that travel: it goes in a header, and clients refuse headers that are longer than 8 KiB."""


def not_counted(_: RouterError) -> None:
    """Counts nothing: errors are counted of inferences, not of questions about the server."""


def unary(method: Method, count_error: CountError = not_counted) -> Any:
    """The handler of a method that has one request and one response.

    Args:
        method: Gets the request's bytes and the call's context; gives the response's bytes.
        count_error: Told of every error that is answered.
    """

    async def answer(body: bytes, context: Any) -> bytes:
        try:
            return await method(body, context)
        except grpc.aio.AbortError:  # a method that has ended its call itself
            raise
        except Exception as error:
            known = known_error(error)
        count_error(known)
        await refuse(context, known)
        raise AssertionError("refuse raises")

    return grpc.unary_unary_rpc_method_handler(answer)


def known_error(error: Exception) -> RouterError:
    """The error itself, or what is said of one that nobody foresaw."""
    if isinstance(error, RouterError):
        return error
    log.error("a call failed in a way that nobody foresaw", exc_info=error)
    return InternalError("An unexpected error; the gateway's log has the details.")


async def refuse(context: Any, error: RouterError) -> None:
    """Ends a call with an error.

    The time after which to try again stands in the trailing metadata twice: in `retry-after` as over HTTP (seconds),
    and in `grpc-retry-pushback-ms`, which gRPC's own retries obey (gRFC A6).

    Raises:
        grpc.aio.AbortError: Always: that is how gRPC ends a call.
    """
    trailing = []
    if error.retry_after_s is not None:
        trailing.append(("retry-after", str(max(1, math.ceil(error.retry_after_s)))))
        trailing.append(("grpc-retry-pushback-ms", str(math.ceil(error.retry_after_s * 1000))))
    await context.abort(status_of(error), error.detail[:MAX_DETAILS], tuple(trailing))


def status_of(error: RouterError) -> grpc.StatusCode:
    """The status code that the error names."""
    return grpc.StatusCode[error.grpc_code]
