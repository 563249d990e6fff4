"""Whether a port can be had, and in which words it is said that it cannot. Needs no gRPC."""

from __future__ import annotations

import socket


class PortTaken(Exception):
    """The address cannot be listened on; the message says what to do.

    Args:
        address: Which one.
        reason: Why not, in the system's words.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"gRPC cannot listen on {address}: {reason}. Name another port with HYBRID_ROUTER_GRPC_PORT "
            "(0 takes a free one), or turn gRPC off with the word off."
        )


def try_port(host: str, port: int, address: str) -> None:
    """Takes a port and gives it back: gRPC gives no reason, and writes to standard error by itself.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        address: The two as people write them.

    Raises:
        PortTaken: It cannot be had.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        raise PortTaken(address, error.strerror or str(error)) from None
