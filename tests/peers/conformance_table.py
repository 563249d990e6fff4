"""The tables of docs/conformance.md: `python -m tests.peers.conformance_table` writes them anew.

Starts a gateway of this checkout, the real Triton, and the MLServer and KServe that `make peers` installs, and runs the
conformance kit against each.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from conformance.catalogue import CHECKS
from tests.contract.every_type import gateway_of_every_type, triton_of_every_type
from tests.gateway_process import ROOT
from tests.peer_servers import Peer, kserve, mlserver, serving

DOCUMENT = ROOT / "docs/conformance.md"
Outcome = Mapping[str, Any]


def checks_block() -> str:
    """What each check asks, as a table."""
    rows = [f"| `{check.name}` | {check.level.value} | {check.says} |" for check in CHECKS]
    return "\n".join(["| check | level | what a server has to do |", "|---|---|---|", *rows])


def results_block(outcomes: Mapping[str, Outcome]) -> str:
    """What came of each check on each server, REST before gRPC."""
    names = list(outcomes)
    lines = [f"| check | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for place, check in enumerate(CHECKS):
        cells = [_cell(outcome["checks"][place]) for outcome in outcomes.values()]
        lines.append(f"| `{check.name}` | {' | '.join(cells)} |")
    verdicts = ["**conforms**" if outcome["conforms"] else "does not" for outcome in outcomes.values()]
    return "\n".join([*lines, f"| as a whole | {' | '.join(verdicts)} |"])


def failures_block(outcomes: Mapping[str, Outcome]) -> str:
    """What was seen where a check failed."""
    lines = []
    for name, outcome in outcomes.items():
        failures = [
            f"- `{check['check']}` over {side}: {_plain(check[key]['sentence'])}"
            for check in outcome["checks"]
            for side, key in (("REST", "rest"), ("gRPC", "grpc"))
            if check[key] is not None and check[key]["status"] == "fail"
        ]
        lines += [f"**{name}**", "", *(failures or ["- nothing"]), ""]
    return "\n".join(lines).rstrip()


def _cell(check: Mapping[str, Any]) -> str:
    words = [_word(check[side]["status"]) for side in ("rest", "grpc") if check[side] is not None]
    return words[0] if len(set(words)) == 1 else " / ".join(words)


def _word(status: str) -> str:
    return "**fail**" if status == "fail" else status


def _plain(sentence: str) -> str:
    """A server's own words, so that Markdown takes them for nothing else, nor for another run's by a port."""
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", sentence).replace("<", "&lt;").replace("|", "\\|")


@contextmanager
def _peer(make: Callable[[], Peer]) -> Iterator[tuple[str, str]]:
    peer = make()
    with serving(peer):
        yield peer.url, f"127.0.0.1:{peer.grpc}"


def check(url: str, grpc: str) -> Outcome:
    """Runs the kit as a command."""
    command = [sys.executable, "-m", "app", "conformance", url, "--grpc", grpc, "--model", "digits", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    outcome: Outcome = json.loads(done.stdout)
    return outcome


def _name(outcome: Outcome) -> str:
    """The server's name and version, as its own metadata has them."""
    by_name = {check["check"]: check for check in outcome["checks"]}
    sentence: str = by_name["server-metadata"]["rest"]["sentence"]
    return sentence


def written(text: str, blocks: Mapping[str, str]) -> str:
    """The document with the blocks between their marks replaced."""
    for mark, block in blocks.items():
        start, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{block}\n{end}{rest.partition(end)[2]}"
    return text


def main(
    servers: Sequence[Callable[[], Any]] = (
        gateway_of_every_type,
        triton_of_every_type,
        lambda: _peer(mlserver),
        lambda: _peer(kserve),
    ),
) -> None:
    """Writes the document's tables."""
    outcomes = {}
    for server in servers:
        with server() as (url, grpc):
            outcome = check(url, grpc)
        outcomes[_name(outcome)] = outcome
        print(_name(outcome), "conforms" if outcome["conforms"] else "does not conform")
    blocks = {
        "checks": checks_block(),
        "results": results_block(outcomes),
        "failures": failures_block(outcomes),
    }
    DOCUMENT.write_text(written(DOCUMENT.read_text(), blocks))


if __name__ == "__main__":
    main()
