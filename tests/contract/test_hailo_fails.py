"""What becomes of calls when the HAT or HailoRT fails: typed errors with advice, nothing left behind, and recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backends.hailo
import backends.hailo_pipeline
from backends.hailo import HailoVariant
from backends.hailo_device import HatHealth, hat_health
from router.errors import BackendError, BackendFailed, BackendTimeout, BackendUnavailable
from router.types import Reply
from tests.contract.backends import MODELS, call, pixels
from tests.contract.hailo import DIGITS, EMBED, ZEROS, backend, opened, refusal, soon, until_it_works, works
from tests.hat import installed, standin, write_samples


async def test_without_hailort_it_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "digits.hef").touch()
    assert "not installed. Install hailo-all" in await refusal(tmp_path, HailoVariant("digits.hef"))
    assert hat_health() is None


@pytest.mark.parametrize(("what", "sentence"), [("library", "MissingPyHRTLib"), ("version", "5.1.1")])
async def test_a_broken_installation_is_said_and_does_no_harm(
    what: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAILO_STANDIN_IMPORT_FAILS", what)
    (tmp_path / "digits.hef").touch()
    with installed():
        said = await refusal(tmp_path, HailoVariant("digits.hef"))
        assert hat_health() is None
    assert "cannot be used" in said
    assert sentence in said


async def test_no_hat_and_a_held_hat_are_told_apart(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    chip.present = False
    assert "No HAT was found" in await refusal(tmp_path, variants["digits"])
    chip.present, chip.owned = True, True
    assert "Another process holds the HAT" in await refusal(tmp_path, variants["digits"])
    chip.owned = False
    async with opened(tmp_path, variants) as servable:
        await works(servable)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist"),
        ("no hef", "cannot read this .hef"),
        ('{"onnx": 1}', "cannot read this .hef"),
        ("another chip", "another chip"),
    ],
)
async def test_a_file_that_is_none_or_for_another_chip_is_refused(
    content: str | None, sentence: str, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    file = tmp_path / "digits.hef"
    if content == "another chip":
        content = file.read_text().replace('"hef": 1', '"compiled_for": "hailo10h"')
    file.unlink() if content is None else file.write_text(content)
    said = await refusal(tmp_path, variants["digits"])
    assert sentence in said
    assert "digits.hef" in said


async def test_a_policy_file_that_does_not_fit_the_hef_is_refused_and_the_chip_let_go(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    assert "has no stream 'label'" in await refusal(tmp_path, HailoVariant("digits.hef"))
    assert not chip.owned
    chip.configure_fails = "HAILO_OUT_OF_HOST_MEMORY"
    assert "not enough memory" in await refusal(tmp_path, variants["digits"])


async def test_all_models_share_one_device_which_goes_with_the_last(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with backend(tmp_path) as one, backend(tmp_path) as other:
        digits = await one.open(DIGITS, variants["digits"])
        embed = await other.open(EMBED, variants["embed"])
        await works(digits)
        await embed.infer(call({"image": np.ones((3, 8, 8), np.float32)}), soon())
        await digits.close()
        assert chip.owned
        await embed.infer(call({"image": np.ones((3, 8, 8), np.float32)}), soon())
        await embed.close()
        assert not chip.owned


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("HAILO_TIMEOUT", BackendTimeout),
        ("HAILO_STREAM_ABORT", BackendUnavailable),
        ("HAILO_INVALID_FRAME", BackendFailed),
        ("HAILO_INTERNAL_FAILURE", BackendFailed),
        ("HAILO_COMMUNICATION_CLOSED", BackendUnavailable),
        ("HAILO_DRIVER_OPERATION_FAILED", BackendUnavailable),
    ],
)
async def test_after_a_failed_job_the_model_is_configured_anew(
    status: str, kind: type[BackendError], chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with opened(tmp_path, variants) as servable:
        chip.fail_next.append(status)
        with pytest.raises(kind) as caught:
            await works(servable)
        assert type(caught.value) is kind
        assert "digits.hef" in caught.value.detail
        assert chip.configured == 1
        await asyncio.gather(*(works(servable) for _ in range(5)))
        assert chip.configured == 2, "once for all of them"


@pytest.mark.parametrize("status", ["HAILO_INVALID_OPERATION", "HAILO_COMMUNICATION_CLOSED"])
async def test_a_job_that_hailort_does_not_even_take_is_mended_like_one_that_failed(
    status: str, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with opened(tmp_path, variants) as servable:
        chip.refuse_next.append(status)
        with pytest.raises(BackendError):
            await works(servable)
        await asyncio.gather(*(works(servable) for _ in range(5)))
        assert chip.configured == 2


async def test_everybody_behind_a_failed_job_is_told(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with opened(tmp_path, variants) as servable:
        chip.gate.clear()
        calling = [asyncio.create_task(works(servable)) for _ in range(30)]
        await asyncio.sleep(0.05)
        chip.fail_next.append("HAILO_INTERNAL_FAILURE")
        chip.gate.set()
        ended = await asyncio.gather(*calling, return_exceptions=True)
        assert all(isinstance(end, BackendError) for end in ended), ended
        await works(servable)


async def test_a_model_that_cannot_be_configured_again_is_tried_by_probes_alone(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with opened(tmp_path, variants) as servable:
        chip.fail_next.append("HAILO_STREAM_ABORT")
        chip.configure_fails = "HAILO_OUT_OF_HOST_MEMORY"
        with pytest.raises(BackendUnavailable):
            await works(servable)
        for _ in range(3):
            with pytest.raises(BackendUnavailable, match="not enough memory"):
                await works(servable)
        chip.configure_fails = ""
        with pytest.raises(BackendUnavailable, match="not enough memory"):
            await works(servable)
        await servable.probe(soon(), synthetic=False)
        await works(servable)


@pytest.mark.parametrize("noticed_by", ["a call", "a probe"])
async def test_a_removed_device_is_unavailable_and_opened_again_when_it_is_back(
    noticed_by: str, chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with backend(tmp_path) as made:
        digits, embed = [await made.open(MODELS[name].spec, variants[name]) for name in ("digits", "embed")]
        chip.present = False
        with pytest.raises(BackendUnavailable):
            await (works(digits) if noticed_by == "a call" else digits.probe(soon(), synthetic=False))
        for servable in (digits, embed, digits, embed):
            with pytest.raises(BackendUnavailable):
                await servable.probe(soon(), synthetic=False)
        chip.present = True
        await until_it_works(digits)
        await until_it_works(embed)
        await digits.close()
        await embed.close()


async def test_a_model_at_rest_lets_a_lost_device_go_that_came_back_unseen(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with backend(tmp_path) as made:
        digits, embed = [await made.open(MODELS[name].spec, variants[name]) for name in ("digits", "embed")]
        chip.fail_next.append("HAILO_COMMUNICATION_CLOSED")
        with pytest.raises(BackendUnavailable):
            await works(digits)
        with pytest.raises(BackendUnavailable, match="every model has let it go"):
            await works(digits)
        with pytest.raises(BackendUnavailable):
            await embed.probe(soon(), synthetic=False)
        await until_it_works(embed)
        await until_it_works(digits)
        await digits.close()
        await embed.close()


async def test_thermal_shutdown_is_said_and_passes_when_the_chip_has_cooled(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with opened(tmp_path, variants) as servable:
        chip.temperature_c = 121.0
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="overheats"):
                await works(servable)
        chip.temperature_c = 70.0
        await until_it_works(servable)


async def test_a_hanging_chip_costs_each_call_its_deadline_and_no_binding(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    late: list[float] = []
    async with opened(tmp_path, variants) as servable:
        chip.gate.clear()
        given_up = [replace(pixels(np.zeros((rows, 64))), late=late.append) for rows in (1, 8, 20, 3)]
        ended = await asyncio.gather(*(servable.infer(c, soon(0.05)) for c in given_up), return_exceptions=True)
        assert [type(end) for end in ended] == [BackendTimeout] * 4
        chip.gate.set()
        for rows in (8, 17):
            reply = await servable.infer(pixels(np.zeros((rows, 64))), soon())
            assert reply.outputs["label"].shape == (rows,)
        assert chip.configured == 1
    assert len(late) == 1, "the first one was on the chip, and its answer came late"
    assert late[0] >= 0.05


async def test_a_chip_that_hangs_for_good_is_configured_anew(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.hailo, "HUNG_AFTER_S", 0.1)
    monkeypatch.setattr(backends.hailo_pipeline, "DRAIN_S", 0.05)
    async with opened(tmp_path, variants) as servable:
        chip.gate.clear()
        with pytest.raises(BackendTimeout):
            await servable.infer(pixels(ZEROS), soon(0.12))
        with pytest.raises(BackendUnavailable, match="starts anew"):
            await servable.probe(soon(), synthetic=False)
        asyncio.get_running_loop().call_later(0.1, chip.gate.set)
        await until_it_works(servable)
        assert chip.configured == 2


async def test_the_event_loop_turns_while_the_queue_is_full(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with opened(tmp_path, variants) as servable:
        chip.gate.clear()
        calling = [asyncio.create_task(servable.infer(pixels(np.zeros((5, 64))), soon())) for _ in range(10)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(task.done() for task in calling)
        chip.gate.set()
        await asyncio.gather(*calling)
        assert chip.most_under_way <= chip.queue_size


async def test_rows_and_callers_share_the_queue_without_ever_overfilling_it(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    async with opened(tmp_path, variants) as servable:
        sizes = [1, 7, 30, 2, 8, 9, 1, 16, 3, 40] * 3
        calling = [asyncio.create_task(servable.infer(pixels(np.zeros((rows, 64))), soon())) for rows in sizes]
        await asyncio.sleep(0.002)
        for task in calling[::4]:
            task.cancel()
        ended = await asyncio.gather(*calling, return_exceptions=True)
        assert all(isinstance(end, Reply | asyncio.CancelledError) for end in ended)
        assert chip.most_under_way <= chip.queue_size
        assert chip.configured == 1
        await servable.infer(pixels(np.zeros((8, 64))), soon(1))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 12)), min_size=1, max_size=25), st.integers(1, 8))
async def test_whoever_gives_up_and_whenever_no_place_in_the_queue_is_lost(
    callers: list[tuple[int, int]], queue_size: int
) -> None:
    """Each caller is its rows, and after how many turns of the event loop it gives up; 0 never does."""
    with standin() as module, TemporaryDirectory() as folder:
        module.CHIP.queue_size = queue_size
        async with opened(Path(folder), write_samples(module, Path(folder))) as servable:

            async def caller(rows: int, turns: int) -> None:
                calling = asyncio.create_task(servable.infer(pixels(np.zeros((rows, 64))), soon()))
                for _ in range(turns):
                    await asyncio.sleep(0.0002)
                if turns:
                    calling.cancel()
                ended = (await asyncio.gather(calling, return_exceptions=True))[0]
                assert isinstance(ended, Reply) or (turns and isinstance(ended, asyncio.CancelledError))

            await asyncio.gather(*(caller(*each) for each in callers))
            await servable.infer(pixels(np.zeros((queue_size, 64))), soon(5))
        assert module.CHIP.configured == 1
        assert module.CHIP.most_under_way <= queue_size


async def test_opening_that_is_given_up_leaves_nothing(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    chip.frame_s = 0.05
    async with backend(tmp_path) as made:
        for _ in range(3):
            opening = asyncio.create_task(made.open(DIGITS, variants["digits"]))
            await asyncio.sleep(0.01)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening


async def test_health_is_read_from_the_chip_that_is_open_and_from_one_that_is_not(
    chip: Any, tmp_path: Path, variants: Mapping[str, HailoVariant]
) -> None:
    assert hat_health() == HatHealth(48.0, 1.4, False)
    async with opened(tmp_path, variants):
        chip.temperature_c, chip.power_w, chip.throttled = 91.5, None, True
        assert hat_health() == HatHealth(91.5, None, True)
        collected = chip.garbage_collections
        assert hat_health() == HatHealth(91.5, None, True)
        assert chip.garbage_collections == collected, "each Device that is made stops the process for a collection"
        chip.present = False
        assert hat_health() is None
    assert hat_health() is None
