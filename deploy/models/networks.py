"""Train the sample networks with scikit-learn: classifiers, a distilled small one, and autoencoders.

Everything here sees training data only; what is held out is for measuring.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx_graph import Floats, Layer
from scipy.optimize import minimize_scalar
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor

Labels = NDArray[np.int64]
Trainer = Callable[[Floats, Labels], list[Layer]]
"""Given pixels float32 [N, 64] and labels int64 [N], gives layers from pixels to logits."""

CLOUD_HIDDEN = (512, 512)
EDGE_HIDDEN = (16,)
EMBEDDING_SIZE = 16
CLOUD_ENCODER_HIDDEN = (256,)
MIXES_PER_IMAGE = 12
CALIBRATION_FOLDS = 5


def logits_of(layers: list[Layer], rows: Floats) -> Floats:
    """Run dense layers with numpy: float32 [N, inputs] → float32 [N, outputs]."""
    activations: dict[str, Callable[[Floats], Floats]] = {
        "": lambda values: values,
        "Relu": lambda values: np.maximum(values, 0),
        "Tanh": np.tanh,
    }
    for layer in layers:
        rows = activations[layer.activation](rows @ layer.weights + layer.bias)
    return rows


def cloud_classifier(pixels: Floats, labels: Labels, seed: int) -> list[Layer]:
    """The large model, trained on the labels.

    Args:
        pixels: float32 [N, 64] in 0..1.
        labels: int64 [N].
        seed: of the initial weights and the order of the samples.

    Returns:
        Layers from pixels to logits.
    """
    network = MLPClassifier(CLOUD_HIDDEN, alpha=1e-3, random_state=seed).fit(pixels, labels)
    return _layers(network.coefs_, network.intercepts_, "Relu", last="")


def distilled_classifier(pixels: Floats, teacher: list[Layer], seed: int) -> list[Layer]:
    """The small model, trained to give the teacher's logits rather than the labels.

    Logits say how alike two digits look to the teacher, which a label does not. The teacher also answers for
    blends of two training images, so the student sees many more points than were labelled (Beyer et al.,
    "Knowledge distillation: a good teacher is patient and consistent", 2022).

    Args:
        pixels: float32 [N, 64] in 0..1.
        teacher: layers from pixels to logits.
        seed: of the blends, the initial weights and the order of the samples.

    Returns:
        Layers from pixels to logits of unit variance: a temperature has to scale them.
    """
    random = np.random.default_rng(seed)
    blends = [pixels]
    for _ in range(MIXES_PER_IMAGE):
        share = random.uniform(0.5, 1.0, (len(pixels), 1)).astype(np.float32)
        blends.append(share * pixels + (1 - share) * pixels[random.permutation(len(pixels))])
    seen = np.concatenate(blends)
    target = logits_of(teacher, seen)
    # A softmax ignores what all logits share, so a student of 16 neurons should not spend any of them on it.
    target = target - target.mean(axis=1, keepdims=True)
    network = MLPRegressor(
        hidden_layer_sizes=EDGE_HIDDEN, learning_rate_init=3e-3, max_iter=1000, tol=1e-6, random_state=seed
    ).fit(seen, target / target.std())
    return _layers(network.coefs_, network.intercepts_, "Relu", last="")


def encoder(pixels: Floats, hidden: tuple[int, ...], seed: int) -> list[Layer]:
    """The front half of an autoencoder, which learns without labels.

    Args:
        pixels: float32 [N, 64] in 0..1.
        hidden: layer widths before the embedding; mirrored after it.
        seed: of the initial weights and the order of the samples.

    Returns:
        Layers from pixels to an embedding of EMBEDDING_SIZE, not yet of length 1.
    """
    widths = (*hidden, EMBEDDING_SIZE, *reversed(hidden))
    network = MLPRegressor(hidden_layer_sizes=widths, activation="tanh", max_iter=400, random_state=seed)
    network.fit(pixels, pixels)
    kept = len(hidden) + 1
    return _layers(network.coefs_[:kept], network.intercepts_[:kept], "Tanh", last="Tanh")


def calibrated_temperature(train: Trainer, pixels: Floats, labels: Labels, seed: int) -> float:
    """The temperature at which a model's confidence comes nearest to how often it is right.

    A model is surer of what it was trained on than of anything else, so each fold's logits come from a model
    that was trained without it (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    Args:
        train: trains the model on the rest of the folds.
        pixels: float32 [N, 64] in 0..1.
        labels: int64 [N].
        seed: of the folds.

    Returns:
        The divisor of the logits with the least cross-entropy.
    """
    folds = StratifiedKFold(CALIBRATION_FOLDS, shuffle=True, random_state=seed)
    logits = np.zeros((len(pixels), labels.max() + 1), dtype=np.float64)
    for kept, left_out in folds.split(pixels, labels):
        logits[left_out] = logits_of(train(pixels[kept], labels[kept]), pixels[left_out])

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(scaled).sum(axis=1))
        return float(np.mean(log_sums - scaled[np.arange(len(labels)), labels]))

    best = minimize_scalar(cross_entropy, bounds=(np.log(0.01), np.log(100.0)), method="bounded")
    return float(np.exp(best.x))


def _layers(
    weights: list[NDArray[np.float64]], biases: list[NDArray[np.float64]], activation: str, last: str
) -> list[Layer]:
    """scikit-learn's coefficients as float32 layers; `last` is the activation of the last one."""
    activations = [activation] * (len(weights) - 1) + [last]
    return [
        Layer(weight.astype(np.float32), bias.astype(np.float32), name)
        for weight, bias, name in zip(weights, biases, activations, strict=True)
    ]
