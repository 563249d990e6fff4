"""The digits model in Ray Serve: `rayserve_digits.py 8080`; it keeps its files in TMPDIR.

As Ray's documentation has it for high throughput: HAProxy before one replica, and the replica's own loop for what it
runs. On two cores that answers ten times as many requests per second as Ray's proxy in Python, with or without
`RAY_SERVE_THROUGHPUT_OPTIMIZED`; a FastAPI ingress is slower, and one thread of HAProxy rather than four no faster.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onnx_session import digits
from starlette.requests import Request


class Digits:
    """Runs on the replica's event loop: handing 11 µs of work to a thread would cost several times as much."""

    def __init__(self) -> None:
        self._session: Any = digits()

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answers label and probabilities of each row of pixels."""
        pixels = np.array((await request.json())["pixels"], dtype=np.float32)
        label, probabilities = self._session.run(["label", "probabilities"], {"pixels": pixels})
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}


def loopback_only() -> None:
    """What has no setting for it and would listen on every interface: a replica's gRPC, HAProxy's pages of figures."""
    from ray.serve._private import haproxy, replica

    add_port, template = replica.add_port_to_grpc_server, haproxy.HAPROXY_CONFIG_TEMPLATE
    replica.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", "127.0.0.1"))
    haproxy.HAPROXY_CONFIG_TEMPLATE = re.sub(r"bind \*?:", "bind 127.0.0.1:", template)


def main(port: int) -> None:
    """Serves until SIGTERM."""
    folder = Path(tempfile.gettempdir())
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(folder / "nobody-reads-this"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy/haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy/admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy/server-state"),
    }
    # Only now, for they read these variables when they are imported.
    import ray
    from ray import serve

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100_000_000,
        runtime_env={"worker_process_setup_hook": loopback_only},
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder),
    )
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=quiet)
    deployment = serve.deployment(Digits, num_replicas=1, max_ongoing_requests=1000, logging_config=quiet)
    serve.run(deployment.bind(), name="digits")
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]))
