"""What drills send: a few streams, each with bytes in its payload that can be recognised on the wire."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from drills.load import Stream

DEADLINE_S = 0.25
PER_SECOND = 100.0

_MARKER_FLOATS = 8
_ROWS_OF_LARGE = 128


def _marker(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Eight float32 in [0, 1) that no other payload holds: 32 bytes, little-endian, on the wire."""
    return np.random.default_rng(seed).random(_MARKER_FLOATS, np.float32)


def _body(model: str, input: str, seed: int, *shape: int) -> bytes:
    """A request whose tensor is nothing but its marker, again and again: a packet cannot hold much of it but not it."""
    tensor = np.resize(_marker(seed), shape)
    return json.dumps({"model": model, "inputs": {input: tensor.tolist()}}).encode()


_PRIMARY, _PHI, _LARGE = 1, 2, 3

PRIMARY = Stream("primary", PER_SECOND, _body("digits", "pixels", _PRIMARY, 1, 64), DEADLINE_S)
"""Goes to the cloud by preference, to the device otherwise."""

CLOUD_ONLY = replace(PRIMARY, body=_body("digits-cloud-only", "pixels", _PRIMARY, 1, 64))
"""The same load without a fallback."""

KIOSK = replace(PRIMARY, name="kiosk", headers={"X-Data-Class": "kiosk"})
"""The same load, for the device by preference."""

PHI = Stream("phi", 10.0, _body("digits", "pixels", _PHI, 1, 64), DEADLINE_S, {"X-Data-Class": "phi"})
"""May not leave the site. Beside the load of every drill."""

LOCAL = Stream("local", PER_SECOND, _body("digits", "pixels", 4, 1, 64), DEADLINE_S, {"X-Data-Class": "onsite"})
"""What the device does alone: the measure for a steady outage in the same run."""

LARGE = Stream("large", 20.0, _body("embed", "image", _LARGE, _ROWS_OF_LARGE, 8, 8), DEADLINE_S)
"""32 kB each: 5 Mbit/s."""

SLOW = Stream("slow", 1.0, _body("slow", "vector", 5, 1, 64), DEADLINE_S)
"""Tens of milliseconds of the device's time each, at a rate that the drill chooses."""

MARKERS = {stream.name: _marker(seed).tobytes() for stream, seed in ((PRIMARY, _PRIMARY), (PHI, _PHI), (LARGE, _LARGE))}
"""What to look for on the wire, by stream."""
