"""The command's options: nonsense is refused with a sentence, before anybody is asked."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from conformance.command import conformance


@pytest.mark.parametrize("timeout", ["nan", "inf", "-inf", "0", "0.09", "3601", "1e9"])
def test_a_timeout_that_never_ends_or_never_begins_is_refused(timeout: str) -> None:
    ended = CliRunner().invoke(conformance, ["http://127.0.0.1:9", "--timeout", timeout])
    assert ended.exit_code == 2
    assert "is not sensible; it must be from 0.1 to 3600 s." in ended.output


@pytest.mark.parametrize("timeout", ["0.1", "3600"])
def test_a_sensible_timeout_is_taken(timeout: str) -> None:
    ended = CliRunner().invoke(conformance, ["http://127.0.0.1:9", "--timeout", timeout])
    assert "not sensible" not in ended.output
    assert "http://127.0.0.1:9" in ended.output
