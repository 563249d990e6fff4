"""What was spent on each backend, on disk: a small file for each, written at every charge.

Invariants:
- A charge that returned survives the death of the process at any instant: it is in the page cache, and the record
  before it is still whole.
- A power cut forgets at most what was charged since the last sync, and never counts anything twice: records hold
  totals, and the record of the last sync is not written over before a later one is on the disk.
- A file has all its blocks before the first charge, so that a full disk does not stop it.
- Nothing raises into the request path: where the disk fails, the count goes on in memory, and `problems` says so.

A file holds four records, a page apart, because a page is what the disk may tear. Each has a sequence number and a
checksum; the newest whole one counts. Four, because none of three may be written over: the latest, the one on the disk
for sure, and the one that a sync under way is bringing there.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Final

from router.budget import Spending, Tally

log = logging.getLogger(__name__)

SYNC_INTERVAL_S: Final = 1.0
"""How much of what was spent a power cut may forget; an SD card wears out if it is synced at every charge."""

SLOTS: Final = 4
SLOT_BYTES: Final = 4096
FILE_BYTES: Final = SLOTS * SLOT_BYTES

_MAGIC: Final = b"SPENDING"
_BODY: Final = struct.Struct("<8sQ" + 2 * "IQIQBB")
_CHECKSUM: Final = struct.Struct("<I")
RECORD_BYTES: Final = _BODY.size + _CHECKSUM.size


class LedgerHeld(Exception):
    """Another process keeps its ledger in the same folder: two that count side by side would both count wrongly."""


def encode(sequence: int, spending: Spending) -> bytes:
    """One record, `RECORD_BYTES` long."""
    body = _BODY.pack(_MAGIC, sequence, *spending.day, *spending.month)
    return body + _CHECKSUM.pack(zlib.crc32(body))


def decode(record: bytes) -> tuple[int, Spending] | None:
    """A record's sequence number and totals, or None if it is torn or none."""
    if len(record) < RECORD_BYTES or not record.startswith(_MAGIC):
        return None
    body = record[: _BODY.size]
    if _CHECKSUM.unpack_from(record, _BODY.size) != (zlib.crc32(body),):
        return None
    _, sequence, *tallies = _BODY.unpack(body)
    day, month = (
        Tally(key, nano, far_key, far_nano, bool(in_force), followed)
        for key, nano, far_key, far_nano, in_force, followed in (tallies[:6], tallies[6:])
    )
    return sequence, Spending(day, month)


def newest(content: bytes) -> tuple[int, int, Spending] | None:
    """Sequence number, slot and totals of a file's newest whole record, or None if none is whole."""
    found = None
    for slot in range(SLOTS):
        decoded = decode(content[slot * SLOT_BYTES :][:RECORD_BYTES])
        if decoded is not None and (found is None or decoded[0] > found[0]):
            found = decoded[0], slot, decoded[1]
    return found


class Account:
    """What was spent on one backend. `Ledger.open` makes it; one task at a time charges it.

    Args:
        spending: What was spent so far.
        descriptor: Its file, open for writing; None counts in memory only.
        sequence: The sequence number of the file's newest record.
        slot: Where that stands; it is on the disk for sure.
        complain: Takes a sentence about what is wrong with the disk.
    """

    def __init__(
        self, spending: Spending, descriptor: int | None, sequence: int, slot: int, complain: Callable[[str], None]
    ) -> None:
        self.spending = spending
        self._descriptor = descriptor
        self._sequence = sequence
        self._latest = self._syncing = self._durable = slot
        self._complain = complain
        self._complained = False

    def charge(self, usd: float, today: date) -> None:
        """Adds what a call costs, and writes it down.

        Args:
            usd: Dollars, at least 0.
            today: The date in UTC.

        Raises:
            ValueError: The amount is negative, infinite or not a number.
        """
        self.spending.charge(usd, today)
        if self._descriptor is not None:
            self._write(self._descriptor)

    def refund(self, usd: float, today: date) -> None:
        """Takes back what a call was charged that never reached the backend, and writes it down; as `charge`."""
        self.spending.refund(usd, today)
        if self._descriptor is not None:
            self._write(self._descriptor)

    def begin_sync(self) -> int | None:
        """A descriptor of its own for `os.fdatasync`, to be closed by whoever syncs; None if all is on the disk."""
        if self._descriptor is None or self._latest == self._durable:
            return None
        try:
            descriptor = os.dup(self._descriptor)
        except OSError as error:
            self._failed(error)
            return None
        self._syncing = self._latest
        return descriptor

    def end_sync(self, error: OSError | None) -> None:
        """Learns how the sync ended that `begin_sync` began."""
        if error is None:
            self._durable = self._syncing
            return
        self._failed(error)
        if self._descriptor is not None:  # the kernel takes what it could not write for written, unless it is again
            self._write(self._descriptor)

    def close(self) -> None:
        """Syncs and closes the file. What is charged later is counted in memory only."""
        if self._descriptor is None:
            return
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._failed(error)
        finally:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, descriptor: int) -> None:
        kept = (self._latest, self._syncing, self._durable)
        slot = next(slot for slot in range(SLOTS) if slot not in kept)
        record = encode(self._sequence + 1, self.spending)
        try:
            written = os.pwrite(descriptor, record, slot * SLOT_BYTES)
        except OSError as error:
            self._failed(error)
            return
        if written == len(record):
            self._sequence += 1
            self._latest = slot

    def _failed(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self._complain(_unwritable(error))


class Ledger:
    """The accounts of all backends, in one folder. At most one process has a folder open.

    `Ledger`, `open` and `close` do blocking I/O that may take as long as the disk takes to sync: call them at
    startup or in a thread. The engine runs `keep_synced` as a task.

    Args:
        folder: Where the files are; made if it is not there.

    Raises:
        LedgerHeld: Another process has it open.
    """

    def __init__(self, folder: Path) -> None:
        self.problems: list[str] = []
        self._folder = folder
        self._accounts: dict[str, Account] = {}
        self._lock: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert self._lock is not None
            os.close(self._lock)
            raise LedgerHeld(
                f"{folder} is in use by another gateway. Stop that one, or give this one a folder of its own."
            ) from None
        except OSError as error:
            self._complain(folder, f"cannot be used ({error.strerror}); what is spent may be forgotten at a restart")

    def open(self, backend: str) -> Account:
        """The account of a backend, with what was spent on it before; the same one if it is open already.

        Args:
            backend: Its name, which the policy file's schema keeps free of all that a file's name may not hold.
        """
        account = self._accounts.get(backend)
        if account is None:
            account = self._accounts[backend] = self._open(self._folder / f"{backend}.spending")
        return account

    async def keep_synced(self) -> None:
        """Brings to the disk once a second what was written; runs until it is cancelled."""
        while True:
            await asyncio.sleep(SYNC_INTERVAL_S)
            begun = [(account, account.begin_sync()) for account in list(self._accounts.values())]
            dirty = {account: descriptor for account, descriptor in begun if descriptor is not None}
            if dirty:
                errors = await asyncio.to_thread(_sync, list(dirty.values()))
                for account, error in zip(dirty, errors, strict=True):
                    account.end_sync(error)

    def close(self) -> None:
        """Syncs and closes everything, and lets the next process have the folder."""
        for account in self._accounts.values():
            account.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _complain(self, path: Path, what: str) -> None:
        problem = f"{path} {what}."
        self.problems.append(problem)
        log.error(problem)

    def _open(self, path: Path) -> Account:
        def complain(what: str) -> None:
            self._complain(path, what)

        descriptor = found = None
        try:
            descriptor = _open_file(path)
            content = _read(descriptor)
            found = newest(content)
            if found is None and content:
                aside = path.with_name(path.name.removesuffix(".spending") + ".damaged")
                complain(f"holds no whole record; counting starts from zero, and the file is kept as {aside.name}")
                path.replace(aside)
                os.close(descriptor)
                descriptor = None
                descriptor = _open_file(path)
            if found is None:
                _fill(descriptor, path)
                found = 0, 0, Spending()
            elif len(content) < FILE_BYTES:
                os.posix_fallocate(descriptor, 0, FILE_BYTES)
            os.fdatasync(descriptor)
        except OSError as error:
            complain(_unwritable(error))
            if descriptor is not None:
                os.close(descriptor)
            return Account(found[2] if found else _read_only(path), None, 0, 0, complain)
        sequence, slot, spending = found
        return Account(spending, descriptor, sequence, slot, complain)


def _unwritable(error: OSError) -> str:
    return f"cannot be written ({error.strerror}); what is spent is counted in memory only, for as long as that lasts"


def _open_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _read(descriptor: int) -> bytes:
    """A file's records; what cannot be read is no record."""
    try:
        return os.pread(descriptor, FILE_BYTES, 0)
    except OSError:
        return b"unreadable"


def _read_only(path: Path) -> Spending:
    """What a file says that cannot be written, as on a card that the kernel has made read-only."""
    try:
        with path.open("rb") as file:
            found = newest(file.read(FILE_BYTES))
    except OSError:
        return Spending()
    return found[2] if found else Spending()


def _fill(descriptor: int, path: Path) -> None:
    """Gives a new file all its blocks and a first record, and brings its name to the disk."""
    content = encode(0, Spending()).ljust(FILE_BYTES, b"\0")
    try:
        if os.pwrite(descriptor, content, 0) < FILE_BYTES:
            os.posix_fallocate(descriptor, 0, FILE_BYTES)
    except OSError:
        path.unlink()  # half a file would be taken for a damaged one
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sync(descriptors: list[int]) -> list[OSError | None]:
    """Syncs and closes each; returns what went wrong, in the same order."""
    errors: list[OSError | None] = []
    for descriptor in descriptors:
        try:
            os.fdatasync(descriptor)
            errors.append(None)
        except OSError as error:
            errors.append(error)
        finally:
            os.close(descriptor)
    return errors
