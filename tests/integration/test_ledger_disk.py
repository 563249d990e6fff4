"""The books of budgets before a real kill, a real full disk, and a real one that became read-only."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from router.ledger import Ledger
from tests.gateway_process import ROOT

CHARGES_UNTIL_KILLED = """
import os, sys
from datetime import date
from pathlib import Path
from router.ledger import Ledger

account = Ledger(Path(sys.argv[1])).open("cloud")
while True:
    account.charge(3e-9, date(2026, 11, 24))
    os.write(1, account.spending.month.spent.to_bytes(8, "little"))
"""


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_process_forgets_nothing_that_it_acknowledged(tmp_path: Path, seed: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHARGES_UNTIL_KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        acknowledged = process.stdout.read(8 * random.Random(seed).randint(1, 3000))
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read()
    last = int.from_bytes(acknowledged[-8:], "little")
    ledger = Ledger(tmp_path)
    found = ledger.open("cloud").spending.month.spent
    ledger.close()
    assert found in (last, last + 3)
    assert not ledger.problems


FILLS_A_DISK = """
import subprocess, sys
from datetime import date
from pathlib import Path
from router.ledger import Ledger

folder, today = Path(sys.argv[1]), date(2026, 11, 24)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
ledger = Ledger(folder)
account = ledger.open("cloud")
try:
    (folder / "ballast").write_bytes(bytes(1 << 20))
except OSError:
    pass
for _ in range(100):
    account.charge(0.01, today)
assert not ledger.problems, ledger.problems
other = ledger.open("other")
other.charge(1.0, today)
assert len(ledger.problems) == 1 and "No space left" in ledger.problems[0], ledger.problems
assert other.spending.this_month_usd(today) == 1
ledger.close()
ledger = Ledger(folder)
assert ledger.open("cloud").spending.this_month_usd(today) == 1
assert not ledger.problems, ledger.problems
ledger.close()
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
ledger = Ledger(folder)
account = ledger.open("cloud")
account.charge(1.0, today)
assert account.spending.this_month_usd(today) == 2
assert len(ledger.problems) == 1 and "Read-only" in ledger.problems[0], ledger.problems
"""


def test_a_full_disk_and_one_that_became_read_only_stop_nothing(tmp_path: Path) -> None:
    """Needs root: it mounts a disk of its own."""
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", FILLS_A_DISK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
