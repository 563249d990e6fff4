"""What is read of a device: small trees as a Pi has them, whole, in part and in ruins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.device_health import (
    SILENT_AFTER_S,
    Source,
    board_watts,
    read_disk,
    read_firmware,
    read_kernel,
    read_thermal,
    sources,
    throttling,
    together,
)
from router.device import DeviceHealth, Flags

THERMAL = "sys/class/thermal/thermal_zone0"

PMIC = """\
     3V7_WL_SW_A current(0)=0.10000000A
       3V3_SYS_A current(1)=0.50000000A
      VDD_CORE_A current(7)=2.00000000A
     3V7_WL_SW_V volt(8)=3.70000000V
       3V3_SYS_V volt(9)=3.30000000V
      VDD_CORE_V volt(15)=0.80000000V
         EXT5V_V volt(24)=5.10000000V
          BATT_V volt(25)=0.00000000V
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    """These files below a root."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def firmware(root: Path, script: str) -> Path:
    """A root with a `vcgencmd` that does this."""
    tree(root, {"usr/bin/vcgencmd": f"#!/bin/sh\n{script}\n"})
    root.joinpath("usr/bin/vcgencmd").chmod(0o755)
    return root


def read_all(root: Path) -> DeviceHealth:
    """What all sources say but the disk."""
    read = [source for source in sources(root, root, lambda: False) if source.name != "disk"]
    return together(read, {source.name: (0.0, source.read()) for source in read}, 0.0, 0.0)


def test_a_pi_is_read_whole(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            f"{THERMAL}/type": "cpu-thermal\n",
            f"{THERMAL}/temp": "61450\n",
            "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
            "sys/class/hwmon/hwmon2/name": "rpi_volt\n",
            "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1\n",
            "sys/class/hwmon/hwmon10/name": "pwmfan\n",
            "sys/class/hwmon/hwmon10/fan1_input": "3120\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq": "2400000\n",
            "sys/devices/system/cpu/cpufreq/boost": "1\n",
            "proc/loadavg": "1.25 0.90 0.40 2/210 4242\n",
            "proc/meminfo": "MemTotal:        8256512 kB\nMemFree:          100 kB\nMemAvailable:    6000000 kB\n",
        },
    )
    firmware(tmp_path, f"case $1 in get_throttled) echo throttled=0x50000;; *) cat <<'END'\n{PMIC}END\n;; esac")
    health = read_all(tmp_path)
    assert (health.soc_c, health.fan_rpm, health.cpu_hz, health.load_1m) == (61.45, 3120, 2.4e9, 1.25)
    assert (health.memory_bytes, health.memory_available_bytes) == (8256512 * 1024, 6000000 * 1024)
    assert health.now == Flags(under_voltage=True, frequency_capped=False, throttled=False, soft_limit=False)
    assert health.since_boot == Flags(under_voltage=True, frequency_capped=False, throttled=True, soft_limit=False)
    assert health.power_w == pytest.approx(1.1451 * (0.37 + 1.65 + 1.6) + 0.5879)
    assert health.silent == ()


@pytest.mark.parametrize("soc", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"])
def test_throttling_is_known_without_the_firmwares_tool(tmp_path: Path, soc: str) -> None:
    health = read_thermal(tree(tmp_path, {f"sys/devices/platform/{soc}/get_throttled": "40004\n"}))
    assert (health.now.throttled, health.now.under_voltage, health.since_boot.throttled) == (True, False, True)


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_all(tmp_path) == DeviceHealth()


@pytest.mark.parametrize("temp", ["", "hot", "-274000", "nan", "999999", "\x00\xff"])
def test_a_temperature_that_is_none_is_none(tmp_path: Path, temp: str) -> None:
    assert read_thermal(tree(tmp_path, {f"{THERMAL}/type": "cpu-thermal", f"{THERMAL}/temp": temp})) == DeviceHealth()


def test_the_zones_of_a_pc_are_not_a_pis(tmp_path: Path) -> None:
    assert read_thermal(tree(tmp_path, {f"{THERMAL}/type": "x86_pkg_temp", f"{THERMAL}/temp": "81000"})).soc_c is None


def test_the_processors_zone_is_found_whatever_its_number(tmp_path: Path) -> None:
    tree(tmp_path, {f"{THERMAL}/type": "gpu-thermal", f"{THERMAL}/temp": "90000"})
    tree(tmp_path, {f"{THERMAL[:-1]}12/type": "cpu-thermal", f"{THERMAL[:-1]}12/temp": "50000"})
    assert read_thermal(tmp_path).soc_c == 50


def test_files_in_ruins_tell_nothing(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/loadavg": "", "proc/meminfo": "MemTotal: many kB\n\x00"})
    tmp_path.joinpath("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").mkdir(parents=True)
    assert read_kernel(tmp_path) == DeviceHealth()


@pytest.mark.parametrize("script", ["exit 1", "echo 'VCHI initialization failed'", "printf '\\377\\376'", "kill -9 $$"])
def test_a_firmware_that_does_not_tell_tells_nothing(tmp_path: Path, script: str) -> None:
    assert read_firmware(firmware(tmp_path, script)) == DeviceHealth()


@given(st.integers(0, 0xFFFFFFFF))
def test_each_bit_is_a_flag_of_its_own(bits: int) -> None:
    now, since_boot = throttling(f"throttled={bits:#x}\n")
    for first, flags in ((0, now), (16, since_boot)):
        told = (flags.under_voltage, flags.frequency_capped, flags.throttled, flags.soft_limit)
        assert told == tuple(bool(bits & 1 << first + flag) for flag in range(4))


@given(st.text() | st.from_regex(r"throttled=.*"))
def test_whatever_the_firmware_says_of_throttling_can_be_read(answer: str) -> None:
    now, since_boot = throttling(answer)
    assert (now == Flags()) == (since_boot == Flags())


@given(
    st.text()
    | st.lists(st.sampled_from(PMIC.splitlines()) | st.from_regex(r"\w+_[AV] volt\(1\)=[0-9.]+V")).map("\n".join)
)
def test_whatever_the_firmware_says_of_power_can_be_read(answer: str) -> None:
    watts = board_watts(answer)
    assert watts is None or watts >= 0


@given(st.permutations(PMIC.splitlines()))
def test_the_order_of_the_rails_does_not_matter(lines: list[str]) -> None:
    assert board_watts("\n".join(lines)) == board_watts(PMIC)


def test_a_rail_without_a_current_draws_nothing_that_is_known() -> None:
    assert board_watts("EXT5V_V volt(24)=5.1V") is None
    assert board_watts(re.sub(r".*(EXT5V|BATT).*\n", "", PMIC)) == board_watts(PMIC)


def test_the_disk_is_the_one_that_a_folder_will_be_on(tmp_path: Path) -> None:
    there = read_disk(tmp_path)
    assert there.disk_bytes
    assert there.disk_free_bytes is not None
    assert 0 <= there.disk_free_bytes <= there.disk_bytes
    assert read_disk(tmp_path / "not/made/yet").disk_bytes == there.disk_bytes


def test_a_source_that_does_not_answer_is_named_and_not_believed() -> None:
    quick, slow = (Source(name, every_s, DeviceHealth) for name, every_s in (("quick", 1.0), ("slow", 10.0)))
    latest = {"quick": (100.0, DeviceHealth(soc_c=50.0)), "slow": (100.0, DeviceHealth(disk_bytes=1))}
    both = together((quick, slow), latest, 90.0, 100.0 + SILENT_AFTER_S)
    assert (both.soc_c, both.disk_bytes, both.silent) == (50.0, 1, ())
    later = together((quick, slow), latest, 90.0, 100.1 + SILENT_AFTER_S)
    assert (later.soc_c, later.disk_bytes, later.silent) == (None, 1, ("quick",))
    never = together((quick,), {}, 90.0, 90.1 + SILENT_AFTER_S)
    assert never.silent == ("quick",)
