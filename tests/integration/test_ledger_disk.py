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


IS_KILLED_AT_EVERY_CALL = """
import os, shutil, signal, sys
from datetime import date
from pathlib import Path
from router.ledger import Ledger

folder, today = Path(sys.argv[1]) / "budgets", date(2026, 11, 24)


def session(charges):
    ledger = Ledger(folder)
    account = ledger.open("cloud")
    for _ in range(charges):
        account.charge(1.0, today)
    descriptor = account.begin_sync()
    if descriptor is not None:
        os.fdatasync(descriptor)
        os.close(descriptor)
        account.end_sync(None)
    account.charge(1.0, today)
    ledger.close()


def is_killed_at(number):
    # In a process of its own; True if it was over before that call.
    child = os.fork()
    if child == 0:
        calls = 0

        def count(frame, event, argument):
            nonlocal calls
            if event in ("c_call", "c_return", "c_exception"):
                calls += 1
                if calls > number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        session(2)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def found():
    ledger = Ledger(folder)
    spent = ledger.open("cloud").spending.this_month_usd(today)
    ledger.close()
    assert not ledger.problems, ledger.problems
    return spent


for had in (0, 3):
    last, number = had, 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if had:
            session(2)
        over = is_killed_at(number)
        spent = found()
        assert had <= last <= spent <= had + 3, (number, last, spent)  # what was charged by an earlier call is there
        last, number = spent, number + 1
        if over:
            break
    assert number > 50 and last == had + 3, (number, last)
"""


def test_a_process_that_is_killed_at_any_call_leaves_books_that_can_be_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IS_KILLED_AT_EVERY_CALL, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
