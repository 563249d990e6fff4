"""What was spent survives crashes at every byte, power cuts and damage."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import tempfile
import threading
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from router import ledger as ledger_module
from router.budget import NANO, Spending, Tally
from router.ledger import FILE_BYTES, RECORD_BYTES, SLOT_BYTES, SLOTS, Ledger, LedgerHeld, decode, encode
from tests.unit.virtual_time import in_virtual_time

TODAY = date(2026, 11, 24)
ROOT = Path(__file__).parents[3]

nanos = st.integers(0, 5 * NANO)
keys = st.integers(0, 99991231)
totals = st.integers(0, (1 << 63) - 1)
tallies = st.builds(Tally, keys, totals, keys, totals, st.booleans(), st.integers(0, 2))


def total(spending: Spending) -> int:
    """Nano-dollars of the month in force."""
    return spending.month.spent


def reopened(content: bytes) -> tuple[int, list[str]]:
    """What a ledger finds in a file with this content, and its problems."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cloud.spending").write_bytes(content)
        ledger = Ledger(Path(folder))
        try:
            return total(ledger.open("cloud").spending), ledger.problems
        finally:
            ledger.close()


def torn(before: bytes, after: bytes, at: int, rest: bytes) -> bytes:
    """The file when only the first `at` bytes of a write came through, with `rest` behind them."""
    changed = [slot for slot in range(SLOTS) if slot_of(before, slot) != slot_of(after, slot)]
    content = bytearray(before)
    for slot in changed:
        start = slot * SLOT_BYTES
        content[start : start + at] = after[start : start + at]
        content[start + at : start + RECORD_BYTES] = (rest or slot_of(before, slot)[at:])[: RECORD_BYTES - at]
    return bytes(content)


def slot_of(content: bytes, slot: int) -> bytes:
    return content[slot * SLOT_BYTES :][:RECORD_BYTES]


class LedgerMachine(RuleBasedStateMachine):
    """Charges, syncs, restarts and crashes. The model: what was charged, and what of it was on the disk for sure."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.file = self.folder / "cloud.spending"
        self.ledger = Ledger(self.folder)
        self.account = self.ledger.open("cloud")
        self.total = self.on_disk = 0
        self.content_on_disk = self.file.read_bytes()
        self.syncing: tuple[int, bytes] | None = None

    def teardown(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.folder)

    @rule(nano=nanos, rest=st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES))
    def charges_and_may_be_killed_at_every_byte_of_it(self, nano: int, rest: bytes) -> None:
        before = self.file.read_bytes()
        self.account.charge(nano / NANO, TODAY)
        after = self.file.read_bytes()
        for at in range(0, RECORD_BYTES, 5):
            for behind in (b"", bytes(RECORD_BYTES), rest):
                found, problems = reopened(torn(before, after, at, behind))
                assert found in (self.total, self.total + nano)
                assert not problems
        self.total += nano
        assert reopened(after) == (self.total, [])

    @rule(nanos=st.lists(nanos, max_size=9))
    def charges_several(self, nanos: list[int]) -> None:
        for nano in nanos:
            self.account.charge(nano / NANO, TODAY)
            self.total += nano

    @precondition(lambda self: self.syncing is None)
    @rule()
    def a_sync_begins(self) -> None:
        descriptor = self.account.begin_sync()
        if descriptor is not None:
            os.close(descriptor)
            self.syncing = self.total, self.file.read_bytes()

    @precondition(lambda self: self.syncing is not None)
    @rule()
    def a_sync_ends(self) -> None:
        self.account.end_sync(None)
        assert self.syncing is not None
        (self.on_disk, self.content_on_disk), self.syncing = self.syncing, None

    @rule(fates=st.lists(st.tuples(st.integers(0, RECORD_BYTES), st.binary(max_size=90)), min_size=SLOTS))
    def the_power_fails(self, fates: list[tuple[int, bytes]]) -> None:
        now = self.file.read_bytes()
        content = bytearray(self.content_on_disk)
        for slot, (at, rest) in zip(range(SLOTS), fates, strict=False):
            if slot_of(now, slot) != slot_of(self.content_on_disk, slot):
                start = slot * SLOT_BYTES
                content[start : start + RECORD_BYTES] = (slot_of(now, slot)[:at] + rest).ljust(RECORD_BYTES)[
                    :RECORD_BYTES
                ]
        found, problems = reopened(bytes(content))
        assert self.on_disk <= found <= self.total
        assert not problems

    @rule()
    def is_started_anew(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.folder)
        self.account = self.ledger.open("cloud")
        assert total(self.account.spending) == self.total
        assert not self.ledger.problems
        self.on_disk, self.content_on_disk, self.syncing = self.total, self.file.read_bytes(), None


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


@given(st.integers(0, 1 << 63), tallies, tallies)
def test_a_record_holds_all_there_is_to_a_spending(sequence: int, day: Tally, month: Tally) -> None:
    record = encode(sequence, Spending(day, month))
    assert len(record) == RECORD_BYTES <= 512
    decoded = decode(record)
    assert decoded is not None
    assert (decoded[0], decoded[1].day, decoded[1].month) == (sequence, day, month)


@given(st.integers(0, 8 * RECORD_BYTES - 1))
def test_a_record_with_a_bit_that_flipped_is_none(bit: int) -> None:
    record = bytearray(encode(7, Spending(Tally(20261124, 5), Tally(202611, 5))))
    record[bit // 8] ^= 1 << bit % 8
    assert decode(bytes(record)) is None


def test_days_and_months_survive_a_restart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state" / "spending")
    ledger.open("cloud").charge(1.5, TODAY)
    ledger.open("cloud").charge(0.25, TODAY + timedelta(days=1))
    ledger.open("Edge.2_b-c").charge(0.125, TODAY)
    ledger.close()
    again = Ledger(tmp_path / "state" / "spending")
    assert again.open("cloud").spending.today_usd(TODAY + timedelta(days=1)) == 0.25
    assert again.open("cloud").spending.this_month_usd(TODAY) == 1.75
    assert again.open("Edge.2_b-c").spending.today_usd(TODAY) == 0.125
    assert not again.problems
    again.close()


def test_a_folder_belongs_to_one_gateway(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(LedgerHeld, match="in use by another gateway"):
        Ledger(tmp_path)
    ledger.close()
    Ledger(tmp_path).close()


@pytest.mark.parametrize("content", [b"rubbish", bytes(FILE_BYTES), b"x" * 3 * FILE_BYTES])
def test_a_damaged_file_is_kept_aside_and_reported(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "cloud.spending"
    file.write_bytes(content)
    ledger = Ledger(tmp_path)
    account = ledger.open("cloud")
    assert total(account.spending) == 0
    assert [problem for problem in ledger.problems if "cloud.damaged" in problem] == ledger.problems != []
    assert (tmp_path / "cloud.damaged").read_bytes() == content
    account.charge(0.5, TODAY)
    ledger.close()
    assert reopened(file.read_bytes()) == (NANO // 2, [])


def test_a_start_that_died_before_its_first_write_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "cloud.spending").touch()
    ledger = Ledger(tmp_path)
    ledger.open("cloud").charge(0.5, TODAY)
    ledger.close()
    assert not ledger.problems


def test_a_folder_that_cannot_be_used_is_reported_and_counted_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / "file" / "folder")
    account = ledger.open("cloud")
    account.charge(0.5, TODAY)
    assert total(account.spending) == NANO // 2
    assert ledger.problems
    ledger.close()


def test_a_disk_that_fails_is_reported_once_and_never_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    account = ledger.open("cloud")
    account.charge(0.5, TODAY)

    def fails(*arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails)
        patch.setattr(os, "fdatasync", fails)
        for _ in range(5):
            account.charge(0.5, TODAY)
        account.end_sync(OSError(errno.EIO, "Input/output error"))
    assert total(account.spending) == 3 * NANO
    assert len(ledger.problems) == 1
    assert "Input/output error" in ledger.problems[0]
    account.charge(0.5, TODAY)
    ledger.close()
    assert reopened((tmp_path / "cloud.spending").read_bytes()) == (3 * NANO + NANO // 2, [])


def test_what_is_charged_after_closing_is_no_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    account = ledger.open("cloud")
    ledger.close()
    account.charge(0.5, TODAY)
    assert not ledger.problems


@in_virtual_time
async def test_it_syncs_while_there_is_something_to_sync() -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        ledger = Ledger(Path(folder))
        account = ledger.open("cloud")
        synced: list[int] = []
        patch.setattr(os, "fdatasync", synced.append)
        keeping = asyncio.create_task(ledger.keep_synced())
        await asyncio.sleep(5)
        assert not synced
        account.charge(0.5, TODAY)
        await asyncio.sleep(5)
        assert len(synced) == 1
        account.charge(0.5, TODAY)
        account.charge(0.5, TODAY)
        await asyncio.sleep(5)
        assert len(synced) == 2
        keeping.cancel()
        ledger.close()


async def test_a_sync_under_way_keeps_its_record_and_the_one_before(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    account = ledger.open("cloud")
    file = tmp_path / "cloud.spending"
    account.charge(1.0, TODAY)
    begun, may_end = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        begun.set()
        may_end.wait(10)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "SYNC_INTERVAL_S", 0.0)
        patch.setattr(os, "fdatasync", slow)
        keeping = asyncio.create_task(ledger.keep_synced())
        await asyncio.to_thread(begun.wait, 10)
        on_the_way = file.read_bytes()
        for _ in range(10):
            account.charge(1.0, TODAY)
        now = file.read_bytes()
        for slot in (0, 1):  # the first record, and the one that is being synced
            assert slot_of(on_the_way, slot) == slot_of(now, slot)
        keeping.cancel()
        may_end.set()
        await asyncio.gather(keeping, return_exceptions=True)
    ledger.close()
    assert reopened(now) == (11 * NANO, [])


def test_the_files_are_for_the_gateway_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.open("cloud")
    ledger.close()
    assert stat.S_IMODE((tmp_path / "cloud.spending").stat().st_mode) == 0o600
