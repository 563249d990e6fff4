"""Files that mean harm, and files that a slip of the hand made: they load, or they are refused, and nothing else."""

from __future__ import annotations

import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.document import PolicyFileError
from policies.loader import load
from router.cascade import confident_rows
from router.deployment import Deployment
from router.plan import AcceptIf

ROOT = Path(__file__).parents[3]
SAMPLE = (ROOT / "policies/samples/default.yaml").read_bytes()
LINES = SAMPLE.splitlines(keepends=True)


def loads_or_is_refused(content: bytes) -> Deployment | None:
    try:
        return load(content)
    except PolicyFileError as error:
        problems = error.problems
    assert problems
    assert all(1 <= problem.line <= content.count(b"\n") + 1 for problem in problems)
    return None


line_numbers = st.integers(0, len(LINES) - 1)
garbage = st.binary(min_size=1, max_size=8) | st.sampled_from(
    [b"\t", b"  ", b": ", b"- ", b"{", b"]", b"&a ", b"*a", b"!!"]
)


@given(line_numbers)
def test_a_line_is_lost(number: int) -> None:
    loads_or_is_refused(b"".join(LINES[:number] + LINES[number + 1 :]))


@given(line_numbers, line_numbers)
def test_a_line_is_pasted_elsewhere(source: int, target: int) -> None:
    loads_or_is_refused(b"".join([*LINES[:target], LINES[source], *LINES[target:]]))


@settings(max_examples=150)
@given(st.integers(0, len(SAMPLE) - 1), st.integers(0, 12), garbage)
def test_something_is_typed_over(at: int, length: int, typed: bytes) -> None:
    loads_or_is_refused(SAMPLE[:at] + typed + SAMPLE[at + length :])


@given(st.integers(0, len(SAMPLE)))
def test_the_file_is_cut_off(at: int) -> None:
    loads_or_is_refused(SAMPLE[:at])


@settings(max_examples=150)
@given(st.binary(max_size=60))
@example(b"a: 0x" + b"f" * 40)
@example(b"a: " + b"9" * 5000)
@example(b"version: 12345678901234567890123\n")
@example(b"2001-13-45: 2001-02-31\n")
@example(b"? {a: b}\n: c\n")
@example(b"<<: {a: 1}\n<<: {b: 2}\n")
@example(b"a: !!binary abc\nb: !!set {x, y}\nc: !!omap [d: 1]\n")
@example(b"~: 1\n")
def test_it_is_no_policy_file_at_all(content: bytes) -> None:
    assert loads_or_is_refused(content) is None


@pytest.mark.parametrize("content", [b"a: &a {b: *a}\n", b"a: &a [*a]\n", b"version: 1\nbackends: &b {x: *b}\n"])
def test_a_file_that_contains_itself_is_refused(content: bytes) -> None:
    assert loads_or_is_refused(content) is None


def alias_bomb(levels: int) -> bytes:
    """A file of some hundred bytes that means ten to the power of `levels` words."""
    lines = ["a0: &a0 [" + ",".join(["x"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, levels)]
    return "\n".join(lines).encode()


def test_an_alias_bomb_is_refused_before_it_is_spelt_out() -> None:
    load(SAMPLE)  # what is imported and cached on first use is not the bomb's
    tracemalloc.start()
    try:
        assert loads_or_is_refused(alias_bomb(6)) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


def in_a_process_of_its_own(content: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    """Loads a file that may take the whole process with it, under a bound of memory and processor time."""
    file = folder / "policy.yaml"
    file.write_bytes(content)
    code = (
        "import pathlib, sys\n"
        "from policies.document import PolicyFileError\n"
        "from policies.loader import load\n"
        "try:\n"
        "    load(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "except PolicyFileError as error:\n"
        "    print('refused:', error.problems[0].message)\n"
    )

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))

    return subprocess.run(
        [sys.executable, "-c", code, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=bounded,
    )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(alias_bomb(9), id="alias bomb"),
        pytest.param(b"a: " + b"[" * 100_000 + b"]" * 100_000, id="nested lists"),
        pytest.param(b"a: " + b"{b: " * 50_000 + b"}" * 50_000, id="nested mappings"),
        pytest.param(b"a: " + b"[" * 3_000 + b"]" * 3_000, id="nested lists, less deep"),
    ],
)
def test_a_bomb_is_refused_and_the_process_lives(content: bytes, tmp_path: Path) -> None:
    ended = in_a_process_of_its_own(content, tmp_path)
    assert (ended.returncode, ended.stdout.partition(":")[0]) == (0, "refused"), ended.stderr[-500:]


def test_a_confidence_that_the_loader_lets_pass_works_in_a_cascade() -> None:
    one_a_row = SAMPLE.replace(
        b"probabilities: {dtype: float32, shape: [-1, 10]}", b"probabilities: {dtype: float32, shape: [-1]}"
    )
    deployment = loads_or_is_refused(one_a_row)
    if deployment is not None:
        import numpy as np

        spec = deployment.models["digits"].spec
        answer = {"probabilities": np.array([0.99, 0.1], np.float32)}
        assert confident_rows(answer, spec, AcceptIf(0.95)).tolist() == [True, False]
