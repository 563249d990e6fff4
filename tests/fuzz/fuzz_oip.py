"""Fuzzes the Open Inference Protocol's decoder, guided by coverage: `make fuzz`, or

python -m tests.fuzz.fuzz_oip -max_total_time=60 FOLDER tests/fuzz/corpus/oip

New inputs go to the first folder. One that crashes is written to the current folder; it belongs into the corpus.
"""

from __future__ import annotations

import asyncio
import sys

import atheris

with atheris.instrument_imports(include=["app.codec", "router.model", "backends.oip"]):
    import app.codec.json_tensors
    import app.codec.oip
    import app.codec.raw_tensors  # noqa: F401

from tests.fuzz.oip_request import decode
from tests.unit.app.codec.front import knowing_engine
from tests.unit.virtual_time import VirtualTimeLoop


def main() -> None:
    """Runs until libFuzzer's options say that it is enough."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        engine = runner.run(knowing_engine().__aenter__())
        atheris.Setup(sys.argv, lambda content: decode(engine, content))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
