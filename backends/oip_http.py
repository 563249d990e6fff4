"""Asks any server of the Open Inference Protocol over REST: KServe, MLServer, Triton, OpenVINO Model Server, or another
gateway of ours.

What a server can do beyond the protocol's core is read from its metadata by the first probe that makes an inference;
until then, and where it says nothing, tensors are JSON.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote, urlsplit

import httpx

from backends.oip import bytes_tensor
from backends.oip_http_channel import HttpChannel
from backends.oip_http_messages import (
    Extensions,
    inference,
    read_extensions,
    read_max_rows,
    read_outputs,
    read_totals,
    refused,
)
from backends.server import Late, Parts, Served, ServerVariant, seconds_until, together
from router.errors import BackendFailed, BackendRejectedInput, BackendUnavailable, Overloaded
from router.model import ModelSpec, Tensor, Tensors
from router.ports import BackendContext, Call, synthetic_call
from router.types import EncodedImage, Reply


@dataclass(frozen=True, slots=True)
class OipHttpOptions:
    """Where the server is, and how it knows us.

    Args:
        url: `http://host:port`, or `https://host:port` for TLS with the system's certificate authorities; a path that
            the server puts before `/v2` included.
        key_variable: The environment variable that holds the key to send as a bearer token; empty sends none.
    """

    url: str
    key_variable: str = ""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            complete = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            alone = not (
                parts.query or parts.fragment or "@" in parts.netloc or any(letter.isspace() for letter in self.url)
            )
            httpx.URL(self.url)
        except (ValueError, httpx.InvalidURL):
            complete = alone = False
        if not (complete and alone):
            raise ValueError(
                "url must look like http://host:8080 or https://host, without user, query or fragment, "
                f"not {self.url!r}"
            )


class OipHttpBackend:
    """One server, one pool of connections."""

    Options: ClassVar[type] = OipHttpOptions
    Variant: ClassVar[type] = ServerVariant
    on_device: ClassVar[bool] = False

    def __init__(self, options: OipHttpOptions, context: BackendContext) -> None:
        self._options = options
        self._channel: HttpChannel | None = None

    async def open(self, model: ModelSpec, variant: ServerVariant) -> OipHttpServable:
        """Makes the channel, which connects when it is first used: no network is needed to open.

        Raises:
            BackendUnavailable: The variable that is to hold the key does not.
        """
        if self._channel is None:
            variable = self._options.key_variable
            key = os.environ.get(variable, "") if variable else ""
            if variable and not (key.isascii() and key.isprintable() and key.strip()):
                raise BackendUnavailable(f"The environment variable {variable} does not hold a key for the server.")
            self._channel = HttpChannel(self._options.url, key)
        return OipHttpServable(self._channel, model, variant)

    async def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            await self._channel.close()


class OipHttpServable:
    """One model on the server."""

    def __init__(self, channel: HttpChannel, model: ModelSpec, variant: ServerVariant) -> None:
        self._channel = channel
        self._model = model
        self._variant = variant
        self._path = _path(variant.name) + (f"/versions/{quote(variant.version, safe='')}" if variant.version else "")
        self._infer_url = channel.url(f"{self._path}/infer")
        self._extensions = Extensions()
        self._served = {variant.name: Served()}
        if variant.encoded_image is not None:
            self._image_url = channel.url(f"{_path(variant.encoded_image.name)}/infer")
            self._served[variant.encoded_image.name] = Served()
        self._rtt_s = 0.0
        self._parts = Parts(model, variant.label)

    async def infer(self, call: Call, deadline: float) -> Reply:
        """Sends the request with what is left until its deadline once the answer's way back is taken off.

        More rows than the server takes at a time go as several requests at once.
        """
        started = time.monotonic()
        if isinstance(call.payload, EncodedImage):
            image = self._variant.encoded_image
            assert image is not None, "takes_image is False"
            model = image.name
            outputs = await self._ask(
                self._image_url, call, {image.input: bytes_tensor(call.payload.content)}, deadline, call.late
            )
        else:
            model = self._variant.name
            outputs = await self._parts.ask(
                lambda part, late: self._ask(self._infer_url, call, part, deadline, late), call.payload, call.late
            )
        return self._served[model].reply(outputs, time.monotonic() - started, self._rtt_s)

    async def probe(self, deadline: float, *, synthetic: bool) -> Reply | None:
        """Asks whether the model is ready, which measures the round trip, and reads statistics where there are any.

        A synthetic probe reads what the server can do and how many rows it takes at a time, and makes an inference on
        zeros.
        """
        try:
            if not synthetic:
                await self._read_state(deadline)
                return None
            await self._read_abilities(deadline)
            return await self.infer(synthetic_call(self._model), deadline)
        except (BackendRejectedInput, Overloaded) as error:  # no caller has put anything in, or asked too much
            raise BackendUnavailable(error.detail) from error

    async def close(self) -> None:
        """Nothing to do: the channel is the backend's."""

    async def _read_state(self, deadline: float) -> None:
        """Readiness and statistics at once: over a slow WAN, one round trip rather than two."""
        counted = self._served.items() if self._extensions.statistics else ()
        await together(
            self._check_ready(deadline), *(self._read_statistics(name, served, deadline) for name, served in counted)
        )

    async def _check_ready(self, deadline: float) -> None:
        started = time.monotonic()
        answer = await self._channel.get(self._channel.url(f"{self._path}/ready"), deadline)
        if answer.status != 200:
            error = refused(answer, self._variant.label)
            raise BackendUnavailable(f"The server says that {self._variant.label} is not ready: {error.detail}")
        self._rtt_s = time.monotonic() - started

    async def _read_statistics(self, name: str, served: Served, deadline: float) -> None:
        answer = await self._channel.get(self._channel.url(f"{_path(name)}/stats"), deadline)
        if answer.status == 200:
            with suppress(BackendFailed):  # who cannot be read here can still answer
                served.learn(read_totals(answer.body))

    async def _read_abilities(self, deadline: float) -> None:
        server = await self._channel.get(self._channel.url("/v2"), deadline)
        self._extensions = read_extensions(server.body) if server.status == 200 else Extensions()
        if self._extensions.configuration:
            config = await self._channel.get(self._channel.url(f"{self._path}/config"), deadline)
            self._parts.most = read_max_rows(config.body) if config.status == 200 else 0

    async def _ask(
        self, url: httpx.URL, call: Call, tensors: Tensors, deadline: float, late: Late | None
    ) -> dict[str, Tensor]:
        seconds = max(0.0, seconds_until(deadline) - self._rtt_s)
        content, headers = inference(call, tensors, self._extensions, seconds)
        answer = await self._channel.infer(url, headers, content, deadline, late)
        if answer.status != 200:
            raise refused(answer, self._variant.label)
        return read_outputs(answer, self._model, self._variant.label)


def _path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"
