"""A transport with a deadline for the whole answer: httpx's own timeouts start anew with every piece that arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx


class BoundedTransport(httpx.BaseTransport):
    """Another transport, whose answers must be complete in time.

    Args:
        transport: Sends the requests.
        timeout_s: Longest from the request to the answer's last byte, seconds.
        clock: Seconds, monotonic.
    """

    def __init__(self, transport: httpx.BaseTransport, timeout_s: float, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._clock = clock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request. Reading the answer raises `httpx.ReadTimeout` once it takes too long."""
        deadline = self._clock() + self._timeout_s
        response = self._transport.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Bounded(response.stream, request, lambda: self._clock() > deadline)
        return response

    def close(self) -> None:
        """Closes what it sends with."""
        self._transport.close()


class _Bounded(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, request: httpx.Request, is_late: Callable[[], bool]) -> None:
        self._stream = stream
        self._request = request
        self._is_late = is_late

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            if self._is_late():
                raise httpx.ReadTimeout("the answer does not end", request=self._request)
            yield piece

    def close(self) -> None:
        self._stream.close()
