"""What `make run` runs: a real Triton on loopback as the cloud, and the gateway before it, until Ctrl-C."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from app.cloud import CloudPorts, CloudUnavailable, TritonProcess
from app.server import Doors, serve
from app.settings import Settings

SAMPLE_IMAGE = Path("deploy/models/seven.png")


def run_demo(settings: Settings, ports: CloudPorts, say: Callable[[str], object]) -> None:
    """Runs both until the gateway is told to stop.

    Args:
        settings: The gateway's.
        ports: The cloud's.
        say: Prints a line.
    """
    with ExitStack() as running:
        say("Starting Triton as the cloud, which takes a few seconds ...")
        try:
            triton = running.enter_context(TritonProcess(ports))
            cloud = f"cloud    Triton (pid {triton.pid}) on {triton.grpc_url}: the large models"
        except CloudUnavailable as error:
            cloud = f"cloud    not running, everything is answered locally: {error}"

        def announce(doors: Doors) -> None:
            url = doors.http
            grpc = f"; gRPC on {doors.grpc}" if doors.grpc else ""
            image = shlex.quote(str(SAMPLE_IMAGE.absolute()))
            say(
                f"\n  edge     ONNX Runtime in this process: the small models from {settings.models_dir}\n"
                f"  {cloud}\n"
                f"  gateway  {url} (API documentation: {url}/docs){grpc}, policy {settings.policy}\n\n"
                "Ask it what digit is in a picture:\n\n"
                f"  curl -s -H 'Content-Type: image/png' --data-binary @{image} '{url}/infer?model=digits'\n\n"
                "Then edit the policy file, or kill Triton, and ask again. Ctrl-C stops everything."
            )

        serve(settings, announce)
