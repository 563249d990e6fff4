"""A small DNS server for one zone, so that names can be lost like anything else.

`python -m drills.names --address HOST --record NAME=IPV4` answers A queries for its records, says of other types that
there are none, and of other names that they do not exist. Prints a line when it listens, and ends when its input does.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
from collections.abc import Mapping

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

PORT = 53
LARGEST_BYTES = 65535

TTL_S = 1
"""Short, as names that a cloud may move have; a resolver that keeps answers for longer does so on its own account."""


def answer(query: bytes, records: Mapping[str, str]) -> bytes | None:
    """The answer to a query, or None to one that is none.

    Args:
        query: A DNS message.
        records: IPv4 addresses by name, without the trailing dot.
    """
    try:
        asked = dns.message.from_wire(query)
        reply = dns.message.make_response(asked)
    except (dns.exception.DNSException, ValueError):
        return None
    reply.flags |= dns.flags.AA
    if not asked.question:
        reply.set_rcode(dns.rcode.FORMERR)
        return reply.to_wire()
    question = asked.question[0]
    address = records.get(question.name.to_text(omit_final_dot=True).lower())
    if address is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        reply.answer.append(dns.rrset.from_text(question.name, TTL_S, dns.rdataclass.IN, dns.rdatatype.A, address))
    return reply.to_wire()


def main() -> None:
    """Answers until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--record", action="append", required=True, metavar="NAME=IPV4")
    options = parser.parse_args()
    records = dict(record.split("=", 1) for record in options.record)
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((options.address, PORT))
        print("answering", flush=True)
        while True:
            ready, _, _ = select.select([server, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            query, asker = server.recvfrom(LARGEST_BYTES)
            reply = answer(query, records)
            if reply is not None:
                server.sendto(reply, asker)


if __name__ == "__main__":
    main()
