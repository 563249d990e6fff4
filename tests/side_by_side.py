"""Runs the whole test suite as two pytest processes side by side: `python -m tests.side_by_side [pytest's options]`.

What runs beside only computes, or asks servers of its own for nothing but right answers; it is the nicer of the two, so
that the other, whose tests kill, hang and cut off things while the time runs, has the processor as if it were alone.
Whatever is not named here runs there. That one writes to the terminal as it goes; what the one beside it had to say
follows at the end.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
NICENESS = "10"
BESIDE = (
    "tests/unit",
    "tests/fuzz",
    "tests/contract/test_policies.py",
    "tests/contract/test_conformance_kit.py",
    "tests/integration/test_accuracy.py",
    "tests/integration/test_browser.py",
    "tests/integration/test_cli.py",
    "tests/integration/test_container.py",
    "tests/integration/test_docs.py",
    "tests/integration/test_report.py",
    "tests/integration/test_schemathesis.py",
)
NO_TEST = 5
"""pytest's exit status where the options left it none, which is right for one of the two."""


def main(options: list[str]) -> int:
    """Runs both; returns 0 if both went well, or else the exit status of one that did not."""
    if missing := [path for path in BESIDE if not (ROOT / path).exists()]:
        sys.exit(f"{__file__} names what there is not: {', '.join(missing)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    pytest = [sys.executable, "-m", "pytest", *options]
    # A cache of its own, or the last one to end would forget what the other saw fail.
    nicer = ["nice", "-n", NICENESS, *pytest, "-o", "cache_dir=.pytest_cache/beside", *BESIDE]
    with tempfile.TemporaryFile("w+") as said:
        beside = subprocess.Popen(nicer, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        first = subprocess.Popen([*pytest, *(f"--ignore={path}" for path in BESIDE)], cwd=ROOT)
        try:
            statuses = [_end(first), _end(beside)]
        finally:
            for process in (first, beside):
                process.terminate()
        said.seek(0)
        print("\nBeside that:\n", said.read(), sep="")
    print(f"The tests end with {statuses[0]}, and those beside them with {statuses[1]}.")
    return next((status for status in statuses if status not in (0, NO_TEST)), min(statuses))


def _end(process: subprocess.Popen[bytes]) -> int:
    """Waits for it to end. Ctrl-C reaches it too, and it then has things to put away."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
