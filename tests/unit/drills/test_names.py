"""What the small DNS server answers."""

from __future__ import annotations

import dns.message
import dns.rcode
from hypothesis import given
from hypothesis import strategies as st

from drills.names import answer

RECORDS = {"cloud.test": "10.213.0.6"}


def ask(name: str, kind: str) -> dns.message.Message:
    """The answer to one query."""
    reply = answer(dns.message.make_query(name, kind).to_wire(), RECORDS)
    assert reply is not None
    return dns.message.from_wire(reply)


def test_a_name_that_it_has_is_answered_with_its_address() -> None:
    reply = ask("Cloud.Test", "A")
    assert [str(item) for item in reply.answer[0]] == ["10.213.0.6"]


def test_of_other_types_the_name_has_none_but_it_exists() -> None:
    reply = ask("cloud.test", "AAAA")
    assert reply.rcode() == dns.rcode.NOERROR
    assert not reply.answer


def test_other_names_do_not_exist() -> None:
    assert ask("elsewhere.test", "A").rcode() == dns.rcode.NXDOMAIN


@given(st.binary(max_size=80))
def test_whatever_is_no_query_is_left_alone(content: bytes) -> None:
    answer(content, RECORDS)
