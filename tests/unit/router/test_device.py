"""When a device counts as strained: the invariants, held against whatever its sensors may say."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.device import COOL_FOR_S, WINDOW_S, DeviceHealth, DeviceLimits, Flags, Strain, Watch

LIMITS = DeviceLimits(shift_above_c=75, back_below_c=68, throttles_at_c=80)
MIDDLE_C = (LIMITS.back_below_c + LIMITS.shift_above_c) / 2

maybe = st.sampled_from((None, False, True))
flags = st.builds(Flags, maybe, maybe, maybe, maybe)
temperatures = st.none() | st.floats(-40, 150) | st.floats(66, 82)
healths = st.builds(
    DeviceHealth,
    soc_c=temperatures,
    now=flags | st.just(Flags()),
    since_boot=flags,
    hat_throttled=st.sampled_from((None, False, False, True)),
    cpu_hz=st.none() | st.just(2.4e9),
    silent=st.just(()) | st.just(("disk",)),
)
looks = st.lists(st.tuples(st.floats(0.2, 12), healths), max_size=40)


def slowed(health: DeviceHealth) -> bool:
    hot = health.soc_c is not None and health.soc_c >= LIMITS.throttles_at_c
    return bool(hot or health.now.throttled or health.now.soft_limit or health.hat_throttled)


def watched(looks: Iterable[tuple[float, DeviceHealth]]) -> list[tuple[float, DeviceHealth, Watch]]:
    """When, what was seen, and the watch after it."""
    now, watch, seen = 1000.0, Watch(), []
    for seconds, health in looks:
        now += seconds
        watch = watch.after(health, now, LIMITS)
        seen.append((now, health, watch))
    return seen


def strains(*celsius: float | None, every_s: float = 1.0) -> list[Strain]:
    """What follows from these temperatures, one a second."""
    return [watch.strain for _, _, watch in watched((every_s, DeviceHealth(soc_c=value)) for value in celsius)]


@given(looks)
def test_a_hot_device_is_strained_at_once(looks: list[tuple[float, DeviceHealth]]) -> None:
    for _, health, watch in watched(looks):
        if slowed(health):
            assert watch.strain is Strain.THROTTLED
        elif health.soc_c is not None and health.soc_c >= LIMITS.shift_above_c:
            assert watch.strain is Strain.WARM


@given(looks)
def test_below_the_middle_of_the_band_no_rise_is_believed(looks: list[tuple[float, DeviceHealth]]) -> None:
    before = Watch()
    for _, health, watch in watched(looks):
        if watch.strain.shifts and not before.strain.shifts and health.soc_c is not None:
            assert slowed(health) or health.soc_c >= MIDDLE_C
        before = watch


@given(looks)
def test_it_recovers_only_after_it_was_cool_for_long(looks: list[tuple[float, DeviceHealth]]) -> None:
    strained, cool_since = False, None
    for now, health, watch in watched(looks):
        celsius = next((c for at, c in reversed(watch.readings) if at > now - WINDOW_S), None)
        cool = not slowed(health) and (celsius is None or celsius < LIMITS.back_below_c)
        cool_since = (now if cool_since is None else cool_since) if cool else None
        if strained and not watch.strain.shifts:
            assert cool_since is not None
            assert now - cool_since >= COOL_FOR_S
        if strained and cool_since is not None and now - cool_since >= COOL_FOR_S:
            assert not watch.strain.shifts
        strained = watch.strain.shifts


@given(looks)
def test_it_is_weak_for_as_long_as_its_voltage_was_too_low_lately(looks: list[tuple[float, DeviceHealth]]) -> None:
    weak_at = None
    for now, health, watch in watched(looks):
        weak_at = now if health.now.under_voltage else weak_at
        lately = weak_at is not None and now - weak_at < COOL_FOR_S
        assert watch.strain.spares or not lately
        assert (watch.strain is Strain.WEAK) <= lately


@given(looks)
def test_only_what_is_recent_is_kept(looks: list[tuple[float, DeviceHealth]]) -> None:
    for now, _, watch in watched(looks):
        assert all(now - WINDOW_S < at <= now for at, _ in watch.readings)


@given(st.floats(20, 67), st.floats(0.05, 4))
def test_a_steady_rise_is_noticed_before_it_throttles(begins_at: float, c_per_s: float) -> None:
    celsius = begins_at
    for strain in strains(*(begins_at + c_per_s * second for second in range(2000))):
        if strain.shifts:
            assert strain is Strain.WARM
            assert celsius < LIMITS.throttles_at_c
            return
        celsius += c_per_s
    pytest.fail("it was never noticed")


def test_a_quick_rise_is_noticed_earlier_than_a_slow_one() -> None:
    def noticed_at(c_per_s: float) -> float:
        rise = [60 + c_per_s * second for second in range(400)]
        return next(c for c, strain in zip(rise, strains(*rise), strict=True) if strain.shifts)

    assert MIDDLE_C <= noticed_at(1.0) < 73 < noticed_at(0.1) <= LIMITS.shift_above_c + 0.1


@given(st.lists(st.sampled_from((71.9, 72.45, 73.0)), min_size=1, max_size=100))
def test_a_sensor_that_counts_in_coarse_steps_is_no_rise(celsius: list[float]) -> None:
    assert set(strains(*celsius)) == {Strain.NORMAL}


def test_a_burst_that_ends_does_not_bring_it_back() -> None:
    # The die is cool within two seconds, and hot again as soon as the load is back.
    assert strains(76, 66, 66, 74, 66, 66, 73) == [Strain.WARM] * 7


def test_it_comes_back_when_it_stayed_cool() -> None:
    assert strains(82, *[66.0] * 11) == [Strain.THROTTLED, *[Strain.WARM] * 10, Strain.NORMAL]


def test_a_sensor_that_falls_silent_strains_nothing_for_long() -> None:
    assert strains(76, *[None] * 25)[-1] is Strain.NORMAL
    assert strains(76, None, None) == [Strain.WARM] * 3


def test_no_sensor_at_all_is_no_strain() -> None:
    assert set(strains(*[None] * 30)) == {Strain.NORMAL}


@given(healths, healths)
def test_what_two_sources_say_is_all_there(one: DeviceHealth, other: DeviceHealth) -> None:
    both = one.merged(other)
    assert both.soc_c == (other.soc_c if one.soc_c is None else one.soc_c)
    assert both.now.under_voltage == other.merged(one).now.under_voltage
    assert bool(both.now.throttled) == bool(one.now.throttled or other.now.throttled)
    assert (both.now.throttled is None) == (one.now.throttled is None and other.now.throttled is None)
    assert one.merged(DeviceHealth()) == one == DeviceHealth().merged(one)


@pytest.mark.parametrize(("above", "below", "throttles"), [(70, 70, 80), (68, 75, 80), (81, 70, 80)])
def test_limits_that_make_no_band_are_refused(above: float, below: float, throttles: float) -> None:
    with pytest.raises(ValueError, match="back_below_c must be below shift_above_c"):
        DeviceLimits(above, below, throttles)
