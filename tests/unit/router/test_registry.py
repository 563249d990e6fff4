"""The extension point, with packages that are installed for the test: directories with entry points on the path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from router.registry import BACKENDS, POLICIES, Registry, UnknownKind

GROUP = "hybrid_router.tests"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package that registers kinds: `install("package", kind="module:Class")`."""

    def install(package: str, *, group: str = GROUP, **kinds: str) -> None:
        metadata = tmp_path / package / f"{package}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{kind} = {value}" for kind, value in kinds.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        monkeypatch.syspath_prepend(tmp_path / package)

    return install


def test_our_own_kinds_are_registered_and_can_be_loaded() -> None:
    assert {"local-first", "cloud-primary", "split"} <= set(Registry(POLICIES).names())
    assert {"onnx", "triton"} <= set(Registry(BACKENDS).names())
    for group in (POLICIES, BACKENDS):
        for name in Registry(group).names():
            assert isinstance(Registry(group).load(name), type)


def test_every_backend_says_whether_it_runs_on_this_device() -> None:
    for name in Registry(BACKENDS).names():
        assert isinstance(Registry(BACKENDS).load(name).on_device, bool), name


def test_a_class_that_lacks_what_the_engine_asks_of_it_is_refused_before_it_is_used(install: Install) -> None:
    install("one", group=BACKENDS, odd="decimal:Decimal")
    with pytest.raises(UnknownKind, match="'odd' cannot be used here: decimal:Decimal has no Options, Variant, on_dev"):
        Registry(BACKENDS).load("odd")


def test_names_are_sorted(install: Install) -> None:
    install("one", zebra="decimal:Decimal", ant="decimal:Decimal")
    assert Registry(GROUP).names() == ("ant", "zebra")


def test_a_kind_is_imported_when_it_is_asked_for_and_not_before(install: Install) -> None:
    install("one", good="decimal:Decimal", broken="no_such_module_anywhere:Thing")
    registry = Registry(GROUP)
    assert registry.load("good").__name__ == "Decimal"
    with pytest.raises(UnknownKind, match=r"'broken' cannot be used here: .*no_such_module_anywhere"):
        registry.load("broken")


def test_two_packages_cannot_register_the_same_kind(install: Install) -> None:
    install("one", kind="decimal:Decimal")
    install("two", kind="fractions:Fraction")
    with pytest.raises(ValueError, match=r"'kind' is registered twice: .*decimal:Decimal|fractions:Fraction"):
        Registry(GROUP)


def test_the_same_registration_seen_twice_is_one(install: Install) -> None:
    install("one", kind="decimal:Decimal")
    install("two", kind="decimal:Decimal")
    assert Registry(GROUP).names() == ("kind",)


def test_an_unknown_kind_lists_the_known_ones_and_suggests() -> None:
    with pytest.raises(UnknownKind, match=r"'local-frist' is not a known kind.*did you mean 'local-first'\?"):
        Registry(POLICIES).load("local-frist")
    with pytest.raises(UnknownKind, match="cloud-primary, fastest, local-first") as caught:
        Registry(POLICIES).load("zzzzzz")
    assert "did you mean" not in str(caught.value)
