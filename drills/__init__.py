"""Failing on purpose: faults on a line and a server of our own, load that does not wait, and the report on both.

Everything here looks at a gateway from outside, over HTTP and as a process; nothing imports the engine.
"""

from pathlib import Path

DEFAULT_FILE = Path(__file__).with_name("default.yaml")
"""The drill file that comes with it."""
