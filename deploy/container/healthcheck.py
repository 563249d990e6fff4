"""The image's HEALTHCHECK: exits with 0 if the gateway in this container answers /healthz. Standard library only."""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException

# Connecting to 0.0.0.0 or :: reaches this machine, so the address to listen on serves for each of its values. A plain
# connection, unlike urllib, never goes through a proxy from the environment.
host = os.environ.get("HYBRID_ROUTER_HOST") or "127.0.0.1"
port = int(os.environ.get("HYBRID_ROUTER_PORT") or 8080)
try:
    connection = HTTPConnection(host, port, timeout=2)
    connection.request("GET", "/healthz")
    status = connection.getresponse().status
except (OSError, HTTPException) as error:
    sys.exit(f"http://{host}:{port}/healthz does not answer: {error}")
sys.exit(None if status == 200 else f"http://{host}:{port}/healthz answers {status}")
