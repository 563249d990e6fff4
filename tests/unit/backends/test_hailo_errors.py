"""The one table of HailoRT's errors: every exception finds an entry, however HailoRT words it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.hailo_errors import MEANINGS, meaning_of, translated
from router.errors import BackendError, BackendFailed, BackendUnavailable, Overloaded


class HailoRTException(Exception):
    """The vendor's base."""


def named(name: str) -> type[Exception]:
    """A class of the vendor's."""
    return type(name, (HailoRTException,), {})


@pytest.mark.parametrize("name", sorted(MEANINGS))
def test_each_entry_is_found_by_class_by_message_and_by_number(name: str) -> None:
    expected = MEANINGS[name]
    if not name.startswith("HAILO_"):
        assert meaning_of(named(name)("whatever")) is expected
        assert meaning_of(type("Derived", (named(name),), {})()) is expected
        return
    assert meaning_of(HailoRTException(f"libhailort failed with error: 74 ({name})")) is expected
    assert meaning_of(HailoRTException("74"), {74: name}.__getitem__) is expected


@pytest.mark.parametrize(
    ("status", "class_name"),
    [
        ("HAILO_TIMEOUT", "HailoRTTimeout"),
        ("HAILO_STREAM_ABORT", "HailoRTStreamAborted"),
        ("HAILO_COMMUNICATION_CLOSED", "HailoCommunicationClosedException"),
        ("HAILO_DRIVER_OPERATION_FAILED", "HailoRTDriverOperationFailedException"),
    ],
)
def test_a_bare_number_means_what_its_class_means(status: str, class_name: str) -> None:
    assert meaning_of(HailoRTException("36"), {36: status}.__getitem__) is MEANINGS[class_name]


@given(st.builds(Exception, st.text(max_size=40)))
def test_whatever_is_raised_becomes_a_sentence(error: Exception) -> None:
    said = translated(error, "m.hef")
    assert isinstance(said, BackendError)
    assert said.detail.startswith("m.hef: ")
    assert "\n" not in said.detail


def test_a_status_that_nobody_foresaw_is_a_failure_of_the_backend() -> None:
    said = translated(HailoRTException("libhailort failed with error: 99 (HAILO_NEW_TROUBLE)"), "m.hef")
    assert type(said) is BackendFailed
    assert "HAILO_NEW_TROUBLE" in said.detail


def test_a_full_queue_says_nothing_about_the_chips_health() -> None:
    assert type(translated(HailoRTException("82 (HAILO_QUEUE_IS_FULL)"), "m.hef")) is Overloaded


def test_the_routers_own_errors_stay() -> None:
    error = BackendUnavailable("as it is")
    assert translated(error, "m.hef") is error
