"""Quantises a model to int8 with ONNX Runtime, and measures what that does to accuracy, size and speed."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.model_data import Samples, predicted_labels
from app.model_profile import made_up, quantiles_ms, timed_runs
from backends.onnx_session import CPU, Loader, answers
from backends.quiet_onnxruntime import ort
from backends.whole_file import write_whole
from router.model import Tensor

CALIBRATION_ROWS = 32
"""Rows of a calibration run; activations are looked at run by run."""

TIMED_RUNS = 300
ROUNDS = 3
"""Variants are timed in turns, and the best of them counts: another process must not decide which is faster."""


class CannotQuantise(Exception):
    """ONNX Runtime cannot quantise the model; the message says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """One form of the model.

    Args:
        form: `float32`, `int8 dynamic` or `int8 static`.
        file: Where it is.
        bytes: Its size.
        correct: Rows that got the right label; None where there are no labels.
        rows: Rows that it was tried on.
        same_label: Rows that got the label which the float32 form gives; None where there are no labels to give.
        worst: The greatest difference from the float32 form in any floating-point output.
        p50_ms: The median run of one row.
        p50_batch_ms: The median run of `batch` rows.
        batch: How many rows those were.
    """

    form: str
    file: str
    bytes: int
    correct: int | None
    rows: int
    same_label: int | None
    worst: float
    p50_ms: float
    p50_batch_ms: float
    batch: int

    def as_json(self) -> dict[str, Any]:
        """As JSON's types."""
        return asdict(self)


def quantise(file: Path, folder: Path, calibration: Samples) -> dict[str, Path]:
    """Writes the model's int8 forms into a folder, each whole or not at all, and returns them by form.

    Raises:
        CannotQuantise: ONNX Runtime cannot do it.
        OSError: They cannot be written.
        ImportError: The package `onnx` is not installed.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    forms = {f"int8 {how}": folder / f"{file.stem}-int8-{how}.onnx" for how in ("dynamic", "static")}
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it advises, through the root logger, to do what is done here
    with tempfile.TemporaryDirectory(prefix="hybrid-router-quantise-") as temporary:
        prepared, dynamic, static = (Path(temporary) / name for name in (file.name, "dynamic", "static"))
        try:
            quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
            quantize_dynamic(str(prepared), str(dynamic), weight_type=QuantType.QInt8)
            quantize_static(
                str(prepared),
                str(static),
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
        except Exception as error:  # it raises whatever its parts raise
            raise CannotQuantise(f"{file} cannot be quantised: {error}") from error
        finally:
            log.setLevel(level)
        for path, made in zip(forms.values(), (dynamic, static), strict=True):
            write_whole(path, made.read_bytes())
    return forms


class _Reader:
    """Gives the calibration data a few rows at a time, in ONNX Runtime's `CalibrationDataReader` way."""

    def __init__(self, samples: Samples) -> None:
        self._batches = _batches(samples)

    def get_next(self) -> dict[str, Tensor] | None:
        return next(self._batches, None)


def _batches(samples: Samples) -> Iterator[dict[str, Tensor]]:
    for start in range(0, samples.rows, CALIBRATION_ROWS):
        yield samples.taken(np.arange(start, min(start + CALIBRATION_ROWS, samples.rows)))


def compare(forms: dict[str, Path], samples: Samples, threads: int, batch: int) -> list[Result]:
    """Tries and times these forms of a model, the first of which the others are held against.

    Raises:
        BackendUnavailable: One of them cannot be loaded.
    """
    loader = Loader((CPU,), threads, Path("/"), None)
    sessions = {form: loader.load(path).session for form, path in forms.items()}
    given_by = {form: answers(session, samples.inputs) for form, session in sessions.items()}
    timed = {size: _medians(sessions, size) for size in (1, batch)}
    reference = next(iter(given_by.values()))
    labels = predicted_labels(reference)
    results = []
    for form, path in forms.items():
        given = predicted_labels(given_by[form])
        results.append(
            Result(
                form=form,
                file=str(path),
                bytes=path.stat().st_size,
                correct=None if samples.labels is None or given is None else int((given == samples.labels).sum()),
                rows=samples.rows,
                same_label=None if given is None or labels is None else int((given == labels).sum()),
                worst=_worst(given_by[form], reference),
                p50_ms=timed[1][form],
                p50_batch_ms=timed[batch][form],
                batch=batch,
            )
        )
    return results


def _medians(sessions: dict[str, ort.InferenceSession], rows: int) -> dict[str, float]:
    """The median run of each, in milliseconds."""
    best = dict.fromkeys(sessions, float("inf"))
    for _ in range(ROUNDS):
        for form, session in sessions.items():
            took = timed_runs(session, made_up(session.get_inputs(), rows), TIMED_RUNS // ROUNDS)
            best[form] = min(best[form], quantiles_ms(took)[0])
    return best


def _worst(outputs: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    floats = [name for name, tensor in reference.items() if tensor.dtype.kind == "f" and tensor.size]
    return max((float(np.abs(outputs[name] - reference[name]).max()) for name in floats), default=0.0)


def draw(results: list[Result], title: str, path: Path) -> None:
    """Draws size, speed and accuracy of the forms side by side, as a PNG.

    Raises:
        ImportError: The package `matplotlib` is not installed.
        OSError: It cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    forms = [result.form for result in results]
    panels: list[tuple[str, list[float]]] = [
        ("size, kB", [result.bytes / 1e3 for result in results]),
        ("median run of one row, µs", [result.p50_ms * 1e3 for result in results]),
        (f"median run of {results[0].batch} rows, µs", [result.p50_batch_ms * 1e3 for result in results]),
    ]
    if all(result.correct is not None for result in results):
        panels.append(("wrong rows", [result.rows - (result.correct or 0) for result in results]))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(3.2 * len(panels), 3.2), layout="constrained")
    for axis, (name, values) in zip(axes, panels, strict=True):
        axis.bar_label(axis.bar(forms, values, color=["#888888", "#4c78a8", "#54a24b"]), fmt="{:,.0f}")
        axis.set_title(name, fontsize=10)
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    pyplot.close(figure)
    write_whole(path, picture.getvalue())
