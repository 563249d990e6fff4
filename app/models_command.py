"""The commands `hybrid-router models`: check, profile, quantize, golden. What they need is imported when they run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from app.places import DEFAULT_MODELS, DEFAULT_POLICY
from app.policy_command import check_policy

if TYPE_CHECKING:
    from app.model_profile import Profile
    from app.model_quantize import Result

MODEL_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DATA_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
THREADS = click.option(
    "--threads", type=click.IntRange(0, 256), default=0, show_default=True, help="Threads of a run; 0 is one per core."
)
LEAST_SHARE = 0.005
OPERATORS_SHOWN = 12


@click.group()
def models() -> None:
    """Look after the models that run on the device: does one fit, how fast is it, smaller, still right?"""


@models.command()
@click.argument("file", type=click.Path(path_type=Path))
@AS_JSON
def check(file: Path, as_json: bool) -> None:
    """Say whether FILE can be served here: memory, operator sets, operators, golden inputs.

    It is held against the memory that is free now, then loaded and run once. Exits with 1 if the gateway would refuse
    it, with a sentence that says what to do.
    """
    from backends.golden import GoldenFailed, golden_path, read_golden
    from backends.memory import free_memory
    from backends.onnx_session import CPU, Loader, answers, checked_file
    from router.errors import BackendError

    root, golden = Path("/"), golden_path(file)
    try:
        facts = checked_file(file)
        loaded = Loader((CPU,), 0, root, None).load(file)
        if golden.is_file():
            wanted = read_golden(golden)
            wanted.check(answers(loaded.session, wanted.inputs))
    except BackendError as error:
        raise click.ClickException(error.detail) from None
    except GoldenFailed as error:
        raise click.ClickException(f"{file.name} is not trusted: {error}.") from None
    free = free_memory(root)
    document: dict[str, Any] = {
        "file": str(file),
        "bytes": facts.file_bytes + facts.external_bytes,
        "needed_bytes": facts.needed_bytes,
        "free_bytes": None if free is None else free.bytes,
        "opsets": dict(facts.opsets),
        "operators": dict(facts.operators),
        "sha256": loaded.sha256,
        "golden_inputs": str(golden) if golden.is_file() else None,
    }
    if as_json:
        return _say_json(document)
    click.echo(f"{file} can be served here.")
    size_mb, needed_mb = document["bytes"] / 1e6, facts.needed_bytes / 1e6
    click.echo(f"  size       {size_mb:,.3f} MB, loading takes about {needed_mb:,.0f} MB")
    click.echo(f"  memory     {'unknown' if free is None else f'{free.bytes / 1e6:,.0f} MB {free.bound}'}")
    click.echo(f"  opset      {', '.join(f'{domain} {number}' for domain, number in facts.opsets.items())}")
    click.echo(f"  operators  {', '.join(f'{name} x{count}' for name, count in facts.operators.items())}")
    click.echo(f"  golden     {'answered' if golden.is_file() else 'none; hybrid-router models golden makes them'}")


@models.command()
@click.argument("model", metavar="MODEL|FILE")
@click.option("--policy", type=click.Path(path_type=Path), default=DEFAULT_POLICY, help="Where MODEL is declared.")
@click.option("--models-dir", type=click.Path(path_type=Path), default=DEFAULT_MODELS, help="Its model files.")
@click.option("--rows", type=click.IntRange(1, 4096), default=1, show_default=True, help="Rows of a run.")
@click.option("--runs", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Runs to time.")
@THREADS
@AS_JSON
def profile(model: str, policy: Path, models_dir: Path, rows: int, runs: int, threads: int, as_json: bool) -> None:
    """Say how fast MODEL is in all its variants, or FILE: P50, P95 and P99, operator by operator, and its memory.

    Input is made up: zeros. A variant that runs elsewhere is asked over the network, and what it does inside cannot be
    seen from here; one that does not answer is named with the reason. The gateway need not run.
    """
    profiles = (
        _file_profiles(Path(model), rows, runs, threads)
        if model.endswith(".onnx")
        else _variant_profiles(model, policy, models_dir, rows, runs)
    )
    if as_json:
        _say_json([{"backend": backend, **profile.as_json()} for backend, profile in profiles])
    else:
        _show_profiles(profiles)
    if all(profile.problem for _, profile in profiles):
        raise SystemExit(1)


def _file_profiles(file: Path, rows: int, runs: int, threads: int) -> list[tuple[str, Profile]]:
    from app.model_profile import profile_file
    from backends.onnx import OnnxOptions

    return [("this device", profile_file(file, OnnxOptions(intra_op_threads=threads), rows, runs))]


def _variant_profiles(name: str, policy: Path, models_dir: Path, rows: int, runs: int) -> list[tuple[str, Profile]]:
    import asyncio

    from app.model_profile import profile_file, profile_variant
    from backends.onnx import OnnxOptions, OnnxVariant
    from backends.registry import backend_maker

    deployment = check_policy(policy)
    entry = deployment.models.get(name)
    if entry is None:
        raise click.ClickException(f"{policy} has no model {name!r}; it has {', '.join(deployment.models)}.")
    make, profiles = backend_maker(models_dir), []
    for backend, variant in entry.variants.items():
        options = deployment.backends[backend].options
        if isinstance(variant, OnnxVariant) and isinstance(options, OnnxOptions):
            found = profile_file(models_dir / variant.file, options, rows, runs)
        else:
            found = asyncio.run(
                profile_variant(make(deployment.backends[backend]), entry.spec, variant, rows=rows, runs=runs)
            )
        profiles.append((backend, found))
    return profiles


def _show_profiles(profiles: Sequence[tuple[str, Profile]]) -> None:
    click.echo(f"{'variant':<28} {'P50 ms':>9} {'P95 ms':>9} {'P99 ms':>9} {'load ms':>9} {'memory MB':>10}  provider")
    for backend, profile in profiles:
        name = f"{backend}: {profile.variant}"
        if profile.problem:
            click.echo(f"{name:<28} {profile.problem}")
            continue
        figures = (profile.p50_ms, profile.p95_ms, profile.p99_ms)
        times = " ".join("-".rjust(9) if value is None else f"{value:9.3f}" for value in figures)
        load = "-" if profile.load_ms is None else f"{profile.load_ms:.1f}"
        memory = "-" if profile.memory_mb is None else f"{profile.memory_mb:.1f}"
        click.echo(f"{name:<28} {times} {load:>9} {memory:>10}  {profile.provider or '-'}")
    for backend, profile in profiles:
        if profile.operators:
            click.echo(f"\noperators of {backend}: {profile.variant}, {profile.rows} rows, by ONNX Runtime's profiler")
        for operator in profile.operators[:OPERATORS_SHOWN]:
            if operator.share >= LEAST_SHARE:
                click.echo(
                    f"  {operator.operator:<24} {operator.calls:6.0f} calls {operator.ms:9.4f} ms "
                    f"{operator.share:6.1%}  {operator.provider}"
                )


@models.command()
@click.argument("file", type=MODEL_FILE)
@click.option("--calibration", type=DATA_FILE, required=True, help="An .npz with the model's inputs by name.")
@click.option(
    "--evaluation", type=DATA_FILE, help="An .npz with inputs and `labels` to judge by.  [default: the calibration's]"
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder.  [default: beside FILE]")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the comparison into this PNG.")
@click.option("--batch", type=click.IntRange(2, 4096), default=32, show_default=True, help="Rows of the second timing.")
@THREADS
@AS_JSON
def quantize(
    file: Path,
    calibration: Path,
    evaluation: Path | None,
    out: Path | None,
    plot: Path | None,
    batch: int,
    threads: int,
    as_json: bool,
) -> None:
    """Quantise FILE to int8, dynamically and statically, and say what that does to accuracy, size and speed.

    Needs the extra `models` (pip install "hybrid-router[models]"), on any machine; speed is that of the machine where
    this runs. Judge by data that calibrated nothing: --evaluation.
    """
    from app.model_data import UnusableData, read_samples
    from app.model_quantize import CannotQuantise, compare, draw, quantise
    from backends.onnx_session import CPU, Loader
    from router.errors import BackendError

    folder = out or file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inputs = Loader((CPU,), threads, Path("/"), None).load(file).session.get_inputs()
        samples = read_samples(calibration, inputs)
        judged = samples if evaluation is None else read_samples(evaluation, inputs)
        forms = {"float32": file} | quantise(file, folder, samples)
        results = compare(forms, judged, threads, batch)
        if plot is not None:
            draw(results, file.name, plot)
    except ImportError as error:
        raise click.ClickException(f'{error}. Install the extra: pip install "hybrid-router[models]"') from None
    except (UnusableData, CannotQuantise) as error:
        raise click.ClickException(str(error)) from None
    except BackendError as error:
        raise click.ClickException(error.detail) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be written: {error.strerror}.") from None
    if as_json:
        return _say_json([result.as_json() for result in results])
    _show_results(results, own_data=evaluation is None)
    if plot is not None:
        click.echo(f"The plot is {plot}.")


def _show_results(results: Sequence[Result], *, own_data: bool) -> None:
    batch = f"P50 of {results[0].batch}"
    head = ("size kB", "right", "as float32", "worst", "P50 µs", f"{batch} µs")
    widths = (9, 11, 11, 8, 9, 13)
    click.echo(f"{'form':<14} " + " ".join(name.rjust(width) for name, width in zip(head, widths, strict=True)))
    for result in results:
        right = "-" if result.correct is None else f"{result.correct}/{result.rows}"
        same = "-" if result.same_label is None else f"{result.same_label}/{result.rows}"
        click.echo(
            f"{result.form:<14} {result.bytes / 1e3:9,.1f} {right:>11} {same:>11} {result.worst:8.4f} "
            f"{result.p50_ms * 1e3:9,.1f} {result.p50_batch_ms * 1e3:13,.1f}"
        )
    for result in results[1:]:
        click.echo(f"{result.form} is {result.file}")
    if own_data:
        click.echo("Judged by the data that calibrated it, which flatters; name other data with --evaluation.")


@models.command()
@click.argument("file", type=MODEL_FILE)
@click.option("--data", type=DATA_FILE, required=True, help="An .npz with the model's inputs, and `labels` if known.")
@click.option("--rows", type=click.IntRange(1, 4096), default=20, show_default=True, help="How many.")
@click.option(
    "--tolerance", type=click.FloatRange(0), default=1e-3, show_default=True, help="How far floats may be off."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="[default: beside FILE]")
def golden(file: Path, data: Path, rows: int, tolerance: float, out: Path | None) -> None:
    """Store golden inputs beside FILE: what any version of it must answer before it may serve.

    With labels in the data, the surest right answers of each label are taken, and only the label must be right: a
    retrained or quantised version passes if it knows them too. Without, every output must be what FILE gives now,
    within the tolerance.
    """
    from app.model_data import UnusableData, golden_of, read_samples
    from backends.golden import golden_path
    from backends.onnx_session import CPU, Loader, answers
    from router.errors import BackendError

    path = out or golden_path(file)
    try:
        session = Loader((CPU,), 0, Path("/"), None).load(file).session
        samples = read_samples(data, session.get_inputs())
        made = golden_of(samples, answers(session, samples.inputs), rows, tolerance)
        made.write(path)
    except UnusableData as error:
        raise click.ClickException(str(error)) from None
    except BackendError as error:
        raise click.ClickException(error.detail) from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from None
    count = len(next(iter(made.inputs.values())))
    click.echo(f"{path} holds {count} golden inputs; {', '.join(made.outputs)} must be right.")


def _say_json(document: Any) -> None:
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
