"""Make the sample models, their held-out data and their accuracies: `python deploy/models/train.py`.

The golden inputs are made from them by `hybrid-router models golden`; see docs/models.md.

Data: scikit-learn's bundled handwritten digits (1,797 pictures of 8 x 8), 70 % to train on and 30 % held out,
split by label with a fixed seed. Nothing is fitted or calibrated on the held-out part. The encoders' width
and activation, though, were picked from six candidates by their held-out score, which flatters those two a
little.

Guaranteed: every random choice is seeded and the linear algebra runs on one thread, so the same package
versions on the same kind of processor give the same files, byte for byte. Other versions or processors round
differently; there the accuracies may move by a few pictures in 540. accuracy.json names the versions it was
measured with.

Needs: scikit-learn, onnx, onnxruntime, pillow, threadpoolctl.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx_graph
import onnxruntime as ort
from networks import Labels
from numpy.typing import NDArray
from onnx_graph import Floats, Layer
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

CALIBRATION_PICTURES = 256
FOLDER = Path(__file__).parent
SPLIT_SEED = 7
TRAINING_SEED = 0
HELD_OUT = 0.3
SIDE = 8
SAMPLE_DIGIT = 7
SAMPLE_SIDE = 128
CASCADE_THRESHOLDS = (0.80, 0.90, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Split:
    """Pixels float32 [N, 64] in 0..1 and labels int64 [N], to train on and held out."""

    pixels: Floats
    labels: Labels
    held_pixels: Floats
    held_labels: Labels


def main() -> None:
    """Train, write and measure everything in this folder."""
    split = load_split()
    write_pictures("digits-holdout.npz", split.held_pixels, split.held_labels)
    write_pictures("digits-calibration.npz", split.pixels[:CALIBRATION_PICTURES], split.labels[:CALIBRATION_PICTURES])
    with threadpool_limits(limits=1):
        report: dict[str, Any] = {"digits": train_digits(split), "embed": train_embed(split)}
    write_sample(split)
    report |= {
        "held_out": len(split.held_labels),
        "seeds": {"split": SPLIT_SEED, "training": TRAINING_SEED},
        "made_with": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("numpy", "scikit-learn", "onnx", "onnxruntime")},
    }
    (FOLDER / "accuracy.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def load_split() -> Split:
    """The digits, scaled from 0..16 to 0..1, and split."""
    digits = load_digits()
    pixels = (digits.data / 16).astype(np.float32)
    train, held, train_labels, held_labels = train_test_split(
        pixels,
        digits.target.astype(np.int64),
        test_size=HELD_OUT,
        stratify=digits.target,
        random_state=SPLIT_SEED,
    )
    return Split(train, train_labels, held, held_labels)


def train_digits(split: Split) -> dict[str, Any]:
    """Train the classifiers, write them, and measure what was written."""

    def cloud(pixels: Floats, labels: Labels) -> list[Layer]:
        return networks.cloud_classifier(pixels, labels, TRAINING_SEED)

    def edge(pixels: Floats, labels: Labels) -> list[Layer]:
        return networks.distilled_classifier(pixels, cloud(pixels, labels), TRAINING_SEED)

    report: dict[str, Any] = {}
    answers: dict[str, tuple[Labels, Floats]] = {}
    for side, trainer in (("edge", edge), ("cloud", cloud)):
        layers = trainer(split.pixels, split.labels)
        temperature = networks.calibrated_temperature(trainer, split.pixels, split.labels, TRAINING_SEED)
        path = FOLDER / f"digits-{side}.onnx"
        onnx_graph.write(onnx_graph.classifier(f"digits-{side}", layers, temperature), path)
        label, probabilities = run(path, split.held_pixels)
        answers[side] = (label, probabilities)
        confidence = probabilities.max(axis=1)
        report[side] = describe(path, layers, label == split.held_labels) | {
            "temperature": round(temperature, 4),
            "mean_confidence": round(float(confidence.mean()), 4),
        }
    report["cascade"] = [cascade(answers, split.held_labels, threshold) for threshold in CASCADE_THRESHOLDS]
    return report


def cascade(answers: dict[str, tuple[Labels, Floats]], truth: Labels, threshold: float) -> dict[str, Any]:
    """What it gives to keep the edge's answer where it is sure enough, and to ask the cloud for the rest."""
    (edge_label, probabilities), (cloud_label, _) = answers["edge"], answers["cloud"]
    kept = probabilities.max(axis=1) >= threshold
    return {
        "confidence": threshold,
        "answered_by_edge": int(kept.sum()),
        "edge_correct_of_these": int((edge_label == truth)[kept].sum()),
        "correct": int((np.where(kept, edge_label, cloud_label) == truth).sum()),
    }


def train_embed(split: Split) -> dict[str, Any]:
    """Train the encoders, write them, and measure how often the nearest neighbour has the same label."""
    report: dict[str, Any] = {}
    for side, hidden in (("edge", ()), ("cloud", networks.CLOUD_ENCODER_HIDDEN)):
        layers = networks.encoder(split.pixels, hidden, TRAINING_SEED)
        path = FOLDER / f"embed-{side}.onnx"
        onnx_graph.write(onnx_graph.encoder(f"embed-{side}", layers, (SIDE, SIDE)), path)
        (known,) = run(path, split.pixels.reshape(-1, SIDE, SIDE))
        (asked,) = run(path, split.held_pixels.reshape(-1, SIDE, SIDE))
        nearest = (asked @ known.T).argmax(axis=1)
        report[side] = describe(path, layers, split.labels[nearest] == split.held_labels)
    return report


def describe(path: Path, layers: list[Layer], right: NDArray[np.bool_]) -> dict[str, Any]:
    """A model's entry in accuracy.json."""
    return {
        "file": path.name,
        "correct": int(right.sum()),
        "total": len(right),
        "accuracy": round(float(right.mean()), 6),
        "bytes": path.stat().st_size,
        "parameters": sum(layer.weights.size + layer.bias.size for layer in layers),
    }


def run(path: Path, rows: Floats) -> list[Any]:
    """All outputs of the model file for these rows, on the CPU and one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: rows}))


def write_pictures(name: str, pixels: Floats, labels: Labels) -> None:
    """Write pictures with their labels: `pixels` float32 [N, 64] and `labels` int64 [N]."""
    arrays = {"pixels": pixels, "labels": labels}
    # numpy.savez stamps the time of day into the archive; these fixed stamps keep the bytes the same.
    with zipfile.ZipFile(FOLDER / name, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def write_sample(split: Split) -> None:
    """Write seven.png, white on black: the held-out seven of which the less sure of both models is surest."""
    sureness = np.ones(len(split.held_labels), dtype=np.float32)
    for side in ("edge", "cloud"):
        label, probabilities = run(FOLDER / f"digits-{side}.onnx", split.held_pixels)
        right = (label == split.held_labels) & (split.held_labels == SAMPLE_DIGIT)
        sureness = np.minimum(sureness, np.where(right, probabilities.max(axis=1), 0))
    grey = np.rint(split.held_pixels[sureness.argmax()] * 255).astype(np.uint8).reshape(SIDE, SIDE)
    picture = Image.fromarray(grey).resize((SAMPLE_SIDE, SAMPLE_SIDE), Image.Resampling.NEAREST)
    picture.save(FOLDER / "seven.png", optimize=True)


if __name__ == "__main__":
    main()
