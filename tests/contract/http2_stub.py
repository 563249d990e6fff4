"""An HTTP/2 server over TLS that ends each connection after so many requests, as nginx does."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events

BODY = b'{"outputs": [{"name": "y", "shape": [1], "datatype": "FP32", "data": [0.5]}]}'


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody has signed, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-days", "2"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@dataclass
class Http2Stub:
    """See the module.

    Attributes:
        most: Requests that one connection carries.
        forgotten: Connections, the first ones, on which it says nothing any more.
        carried: How many requests each connection has carried.
    """

    most: int
    forgotten: int = 0
    carried: list[int] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection's requests."""
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        mine = len(self.carried)
        self.carried.append(0)
        writer.write(connection.data_to_send())
        while received := await reader.read(65536):
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded) and mine >= self.forgotten:
                    self.carried[mine] += 1
                    connection.send_headers(event.stream_id, [(":status", "200")])
                    connection.send_data(event.stream_id, BODY, end_stream=True)
            if self.carried[mine] >= self.most:
                connection.close_connection()
                writer.write(connection.data_to_send())
                break
            writer.write(connection.data_to_send())
        writer.close()


@asynccontextmanager
async def http2_stub(folder: Path, most: int = 1000) -> AsyncIterator[Http2Stub]:
    """Runs one on a free port, with `cert.pem` in the folder to trust."""
    cert, key = certificate(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    tls.set_alpn_protocols(["h2"])
    stub = Http2Stub(most)
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0, ssl=tls)
    stub.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield stub
    finally:
        server.close()
