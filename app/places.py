"""Where the gateway's files are unless it is told. Apart from the settings, so that a command's help needs no more."""

from pathlib import Path

DEFAULT_POLICY = Path("policies/samples/default.yaml")
DEFAULT_MODELS = Path("deploy/models")
DEFAULT_STATE = Path("state")
