"""A gateway that its surroundings fail: a read-only root, a full disk, a log that nobody takes, a clock that leaps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.cloud import TritonProcess
from tests.gateway_process import ROOT, GatewayProcess, policy_text
from tests.integration.scenario import BLANK, Clients, edited, eventually, is_up

DEADLINE_MS = 1500
BODY = {"model": "digits", "inputs": {"pixels": BLANK}, "deadline_ms": DEADLINE_MS}

ON_A_READ_ONLY_ROOT = """
mount --make-rprivate /
awk '$2 ~ "^/" && $2 !~ "^/(dev|proc|sys)(/|$)" { print $2 }' /proc/self/mounts | while read -r place; do
  mount -o remount,bind,ro "$place"
done
exec "$@"
"""

WITH_A_SMALL_DISK = """
mount --make-rprivate /
mount -t tmpfs -o size=96k tmpfs "$HYBRID_ROUTER_STATE_DIR"
dd if=/dev/zero of="$HYBRID_ROUTER_STATE_DIR/ballast" bs=4k 2>/dev/null || true
exec "$@"
"""

CLOCKS = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def in_mounts_of_its_own(script: str) -> list[str]:
    """What runs a command after this script has changed the mounts that it sees; needs root."""
    return ["unshare", "--mount", "sh", "-ec", script, "sh"]


def mistaken(policy: str) -> str:
    """A policy file that is not valid."""
    return policy.replace("kind: triton", "kind: tritonn")


def with_another_price(policy: str) -> str:
    """Another policy file that is as good."""

    def change(content: dict[str, Any]) -> None:
        content["backends"]["cloud"]["price"]["node"]["node_usd_per_hour"] = 3.0

    return edited(policy, change)


@pytest.fixture
def policy(tmp_path: Path, triton: TritonProcess) -> Path:
    """A policy file before the cloud that nobody may harm."""
    file = tmp_path / "policy.yaml"
    file.write_text(policy_text(triton.grpc_url))
    return file


def test_a_read_only_root_costs_the_memory_not_the_service(policy: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    environment = {"HYBRID_ROUTER_STATE_DIR": str(state)}
    with GatewayProcess(policy, environment, within=in_mounts_of_its_own(ON_A_READ_ONLY_ROOT)) as gateway:
        gateway.wait_until(is_up)
        assert gateway.infer(**BODY)["route"]["backend"] == "cloud"
        assert gateway.infer(**BODY, data_class="phi")["route"]["backend"] == "edge"
        status = gateway.http.get("/status").json()
        assert any("Read-only file system" in problem for problem in status["ledger_problems"])
        assert status["budgets"]["cloud"]["spent_month_usd"] > 0
        before = gateway.http.get("/policy").json()["in_force"]["sha256"]
        policy.write_text(with_another_price(policy.read_text()))
        gateway.wait_until(lambda it: it.http.get("/policy").json()["in_force"]["sha256"] != before)
        assert gateway.log().count("last-good.yaml cannot be written (Read-only file system)") == 1
    assert not list(state.iterdir())


def test_a_full_disk_costs_the_memory_until_there_is_room_again(policy: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    environment = {"HYBRID_ROUTER_STATE_DIR": str(state)}
    with GatewayProcess(policy, environment, within=in_mounts_of_its_own(WITH_A_SMALL_DISK)) as gateway:
        seen_by_it = Path(f"/proc/{gateway.process.pid}/root{state}")
        gateway.wait_until(is_up)
        assert gateway.infer(**BODY)["route"]["backend"] == "cloud"
        assert any("No space left" in it for it in gateway.http.get("/status").json()["ledger_problems"])
        assert "last-good.yaml cannot be written (No space left on device)" in gateway.log()
        assert not list(seen_by_it.glob("*.new")), "what could not be written whole takes no room"
        (seen_by_it / "ballast").unlink()
        eventually(lambda: list(seen_by_it.glob("policy-*.last-good.yaml")), "the copy is kept after all")


def test_nobody_to_take_the_log_stops_nothing(policy: Path, tmp_path: Path) -> None:
    environment = {"HYBRID_ROUTER_STATE_DIR": str(tmp_path / "state")}
    with GatewayProcess(policy, environment, within=["sh", "-c", 'exec "$@" 2>/dev/full', "sh"]) as gateway:
        gateway.wait_until(is_up)
        good = policy.read_text()
        policy.write_text(mistaken(good))
        gateway.wait_until(lambda it: it.http.get("/policy").json()["problems"])
        policy.write_text(good)
        gateway.wait_until(lambda it: it.http.get("/policy").json()["file_is_in_force"])
        assert gateway.infer(**BODY)["route"]["backend"] == "cloud"


def test_a_damaged_copy_of_the_policy_file_does_not_stop_a_start_with_a_good_file(policy: Path, tmp_path: Path) -> None:
    state = {"HYBRID_ROUTER_STATE_DIR": str(tmp_path / "state")}
    with GatewayProcess(policy, state) as gateway:
        gateway.process.kill()
        gateway.process.wait(10)
    (copy,) = (tmp_path / "state").glob("policy-*.last-good.yaml")
    copy.write_bytes(copy.read_bytes()[:500])
    with GatewayProcess(policy, state) as gateway:
        assert gateway.http.get("/policy").json()["file_is_in_force"]
    policy.write_text(mistaken(policy.read_text()))
    with GatewayProcess(policy, state) as gateway:
        assert not gateway.http.get("/policy").json()["file_is_in_force"], "it was replaced by a whole one"


SEEN_AFTER_S = 2.5
"""How long a leap may go unnoticed: what was read is kept for more than a second, counted in whole ones."""


class Clock:
    """The wall clock that a gateway sees, on a real one's monotonic clock.

    Args:
        file: Where libfaketime looks for the time, again and again; in a folder of its own, which nobody watches.
        says: What it says at first, such as `1970-01-01 00:00:10`, in UTC.
    """

    def __init__(self, file: Path, says: str) -> None:
        self._file = file
        file.parent.mkdir()
        assert CLOCKS, "this test needs a clock that can be set: apt install libfaketime"
        self.leap(says)
        self.environment = {
            "LD_PRELOAD": str(CLOCKS[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",  # to read the file for every look takes all of the processor
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "TZ": "UTC",
        }

    def leap(self, to: str) -> None:
        """Sets the clock while everybody looks at it."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"@{to}\n")
        beside.replace(self._file)
        time.sleep(SEEN_AFTER_S)


def test_a_clock_that_leaps_by_decades_changes_no_answer_and_loses_no_spending(policy: Path, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock/now", "1970-01-01 00:00:10")
    environment = clock.environment | {"HYBRID_ROUTER_STATE_DIR": str(tmp_path / "state")}

    def says(gateway: GatewayProcess, day: str) -> None:
        """The clock in what people read: a policy file is put in force now."""
        with policy.open("a") as file:
            file.write(f"# {day}\n")
        gateway.wait_until(lambda it: it.http.get("/policy").json()["in_force"]["since"].startswith(day))

    def spent(gateway: GatewayProcess) -> float:
        return float(gateway.http.get("/status").json()["budgets"]["cloud"]["spent_month_usd"])

    with GatewayProcess(policy, environment) as gateway:
        gateway.wait_until(is_up)
        assert gateway.http.get("/policy").json()["in_force"]["since"].startswith("1970-01-01")
        clock.leap("2061-03-01 12:00:00")  # whatever is spent is spent after this: a month that is over does not count
        says(gateway, "2061-03-01")
        with Clients(gateway, BODY, count=2) as clients:
            for leap in ("1999-12-31 12:00:00", "2026-11-24 10:00:00"):
                clock.leap(leap)
                says(gateway, leap[:10])
                gateway.wait_until(is_up)
                clients.wait_for(
                    lambda answers: len(answers) >= 20 and {answer.backend for answer in answers[-20:]} == {"cloud"},
                    "it goes on answering from the cloud",
                )
        assert not clients.failures()
        assert all(0 < answer.latency_ms < DEADLINE_MS for answer in clients.answers)
        cost = gateway.metric("hybrid_router_cost_usd_total", backend="cloud")
        assert spent(gateway) == pytest.approx(cost, abs=1e-6), "all that was spent counts in the month in force"
        before = spent(gateway)
        gateway.process.kill()
        gateway.process.wait(10)
    clock.leap("1970-01-01 00:00:10")
    with GatewayProcess(policy, environment) as gateway:
        assert spent(gateway) == before


def test_the_injected_clock_is_what_it_says(tmp_path: Path) -> None:
    """The test above is worth nothing if its clock does not leap, or if it takes the monotonic one along."""
    program = "import time; print(time.gmtime().tm_year, time.monotonic())"
    clock = Clock(tmp_path / "clock/now", "2061-03-01 12:00:00")
    before = time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | clock.environment, capture_output=True, text=True
    ).stdout.split()
    assert said[0] == "2061"
    assert before <= float(said[1]) <= time.monotonic()
