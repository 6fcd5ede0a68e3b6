"""`castream <command>`: the library from a shell. Progress and errors go to stderr, results to stdout."""

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import sys
from typing import Any

from castream_jax.commands import bench, completion, explain, export
from castream_jax.experiment.config import Config, open_config, override
from castream_jax.version import __version__

# Commands import what they need when they run: `castream --help` must not wait for Orbax, grain and matplotlib.

_EPILOG = """exit status:
  0    done
  2    a mistake in arguments, config, data or weights, told in one sentence; CASTREAM_TRACEBACK=1 shows where from
  3    training diverged
  130  interrupted: the same command continues

Results go to stdout, progress and errors to stderr. NO_COLOR=1 takes the colours off. Completion of commands and
options in this shell (bash, zsh, tcsh), with the extra castream_jax[completion]:

  eval "$(castream --print-completion bash)"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        Exit status: 0; 2 after a mistake in arguments, config, data or weights, told in one sentence; 3 when training
        diverged; 4 when another process of the run died; 130 when interrupted. `CASTREAM_TRACEBACK=1` shows where an
        error came from.
    """
    arguments, overrides = _parser().parse_known_args(argv)
    try:
        if overrides and arguments.run not in (_quickstart, _train, _evaluate, _reproduce):
            raise ValueError(f"{arguments.command} takes no {overrides[0]}: see castream {arguments.command} --help.")
        arguments.run(arguments, overrides)
    except KeyboardInterrupt:
        print("\ncastream: interrupted; the same command continues where it was last saved.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("CASTREAM_TRACEBACK"):
            raise
        print(f"castream: {' '.join(str(error).split())}", file=sys.stderr)
        return 3 if isinstance(error, FloatingPointError) else 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="castream",
        description="CA-Stream: attention-based pooling for interpretable image recognition.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    completion.add_option(parser)
    parser.add_argument("--version", action="version", version=f"castream_jax {__version__}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, run, text in (
        ("quickstart", _quickstart, "Train, evaluate and report on the bundled digits, offline."),
        ("train", _train, "Train the streams of a config beside its frozen backbone; run again to continue."),
        ("evaluate", _evaluate, "Measure accuracy and interpretability of a trained workdir, GAP beside every stream."),
        ("report", _report, "Write report/index.html for an evaluated workdir."),
    ):
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        if name == "quickstart":
            command.add_argument("--workdir", default="workdirs/quickstart", help="folder for everything it makes")
        else:
            command.add_argument("--workdir", required=True, help="folder of the experiment")
        if name == "report":
            command.add_argument("--compare", nargs="+", default=[], metavar="DIR", help="other workdirs, side by side")
        if name == "train":
            command.add_argument("--profile", action="store_true", help="trace steps 10 to 20 into logs/")
        if name in ("train", "evaluate"):
            command.add_argument("--coordinator", metavar="HOST:PORT", help="of several processes, where process 0 is")
            command.add_argument("--num-processes", type=int, metavar="N", help="of several processes, how many")
            command.add_argument("--process-id", type=int, metavar="I", help="of several processes, which one this is")
            command.add_argument("--config", metavar="FILE", help="see configs/; by default the one in the workdir")
        if name != "report":
            command.epilog = "Any field of the config can be set: --config.train.epochs=3. Unknown fields are refused."
    text = "Reproduce tables and figures of the paper: train and evaluate what is missing, then write them."
    command = commands.add_parser("reproduce", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=_reproduce)
    command.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help="table1, supp-table1 … supp-table5, fig2, fig3, fig-identity, fig-depth, fig-curves, fig-placement; "
        "table1:small on data that is at hand",
    )
    command.add_argument("--workdir", required=True, help="folder for everything it makes")
    command.add_argument("--data", default="", metavar="DIR", help="folder of the datasets, or of the one needed")
    command.add_argument("--configs", metavar="DIR", help="by default the configs/ beside the package")
    command.add_argument("--dry-run", action="store_true", help="print the plan, with trunk passes and hours")
    command.epilog = "Fields are set for every experiment: --config.evaluation.batch_size=128."
    explain.add(commands)
    text = "List the backbones: parameters, stages, size of the stream, published weights (Markdown)."
    commands.add_parser("models", help=text, description=text, allow_abbrev=False).set_defaults(run=_models)
    text = "Show the evaluation protocols: all of them, the choices of one, or where two differ (Markdown)."
    command = commands.add_parser("protocol", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=_protocol)
    actions = command.add_subparsers(required=True, dest="action", metavar="ACTION")
    for action, names, text in (
        ("list", (), "Name, hash and particular choices of every protocol."),
        ("show", ("NAME",), "Every choice of one protocol, and its hash."),
        ("diff", ("A", "B"), "The choices that differ between two protocols."),
    ):
        parser_of_action = actions.add_parser(action, help=text, description=text, allow_abbrev=False)
        for name in names:
            parser_of_action.add_argument("names", metavar=name, action="append")
    text = "Check a backbone's weights against its architecture and write them as safetensors, in torchvision's names."
    command = commands.add_parser("convert", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=_convert)
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a .pth, .pt, .th, .npz or .safetensors file, or an entry such as imagenet1k_v1",
    )
    command.add_argument("--arch", required=True, metavar="NAME", help="backbone, such as resnet50")
    command.add_argument("--out", required=True, metavar="PATH.safetensors|DIR", help="file, or folder for it")
    command.add_argument(
        "--num-classes", type=int, metavar="N", help="where they are not those of the published weights"
    )
    export.add(commands)
    bench.add(commands)
    data = commands.add_parser("data", help="Check a dataset: see castream data check --help.", allow_abbrev=False)
    actions = data.add_subparsers(required=True, metavar="ACTION")
    text = "Count a dataset, decode every image, draw a sample to look at. Exit status 2 if an image is unreadable."
    command = actions.add_parser("check", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=_data_check)
    command.add_argument("source", metavar="SOURCE", help="image_folder, imagenet, cub, voc, indoor67, cifar10, …")
    command.add_argument("--path", default="", help="folder of the dataset")
    command.add_argument("--split", action="append", metavar="NAME", help="may be repeated; by default all there are")
    command.add_argument("--sample", default="data-sample", metavar="PREFIX", help="the samples are PREFIX-SPLIT.png")
    command.add_argument("--difficult", default="ignore", choices=("ignore", "count"), help="of Pascal VOC")
    command.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="that decode")
    return parser


def _quickstart(arguments: argparse.Namespace, overrides: list[str]) -> None:
    from castream_jax.experiment.quickstart import get_config

    config = override(get_config(), overrides)
    _start()
    from castream_jax.evaluation import evaluate
    from castream_jax.training import train

    train(config, arguments.workdir)
    _print_results(evaluate(config, arguments.workdir), arguments.workdir)


def _train(arguments: argparse.Namespace, overrides: list[str]) -> None:
    config = _config(arguments, overrides)
    _start(arguments.coordinator, arguments.num_processes, arguments.process_id)
    from castream_jax.runtime.processes import exit_when_peer_dies
    from castream_jax.training import train

    with exit_when_peer_dies():
        print(train(config, arguments.workdir, profile=arguments.profile))


def _evaluate(arguments: argparse.Namespace, overrides: list[str]) -> None:
    config = _config(arguments, overrides)
    _start(arguments.coordinator, arguments.num_processes, arguments.process_id)
    from castream_jax.evaluation import evaluate
    from castream_jax.runtime.processes import exit_when_peer_dies

    with exit_when_peer_dies():
        _print_results(evaluate(config, arguments.workdir), arguments.workdir)


def _report(arguments: argparse.Namespace, overrides: list[str]) -> None:
    from castream_jax.reporting import write_report

    compare = [Path(workdir).resolve() for workdir in arguments.compare]
    print(write_report(Path(arguments.workdir).resolve(), compare))


def _reproduce(arguments: argparse.Namespace, overrides: list[str]) -> None:
    from rich.console import Console

    by_form: dict[str, list[str]] = {}
    for text in arguments.targets:
        target, _, form = text.partition(":")
        by_form.setdefault(form, []).append(target)
    _start()
    from castream_jax.reproduce.plan import plan_table
    from castream_jax.reproduce.run import plan, reproduce
    from castream_jax.reproduce.runs import Options

    requests = [
        (targets, arguments.workdir, Options(form, arguments.data, arguments.configs, overrides))
        for form, targets in by_form.items()
    ]
    if arguments.dry_run:
        steps = [step for request in requests for step in plan(*request)]
        Console(soft_wrap=True).print(plan_table(steps))
        return
    for request in requests:
        for path in reproduce(*request):
            print(path)


def _convert(arguments: argparse.Namespace, overrides: list[str]) -> None:
    from castream_jax.backbones import fingerprint, load_backbone, save_torch_weights
    from castream_jax.weights.files import TRUNK_FILE

    out = Path(arguments.out)
    if out.suffix in (".pth", ".pt", ".th", ".npz"):
        raise ValueError(f"{out}: convert writes safetensors, give --out a file of that suffix or a folder.")
    if (out / "model.json").exists():
        raise ValueError(f"{out} holds an exported model, whose trunk stays as it is: give --out another folder.")
    backbone = load_backbone(arguments.arch, arguments.source, num_classes=arguments.num_classes)
    path = out if out.suffix == ".safetensors" else out / TRUNK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_torch_weights(backbone, path)
    print(f"{path.resolve()}\ntrunk fingerprint {fingerprint(backbone)}")


def _models(arguments: argparse.Namespace, overrides: list[str]) -> None:
    from castream_jax.reporting.models import models_table

    for line in models_table():
        print(line, flush=True)


def _protocol(arguments: argparse.Namespace, overrides: list[str]) -> None:
    from castream_jax.reporting.protocols import differences_table, protocol_table, protocols_table

    tables = {"list": protocols_table, "show": protocol_table, "diff": differences_table}
    for line in tables[arguments.action](*getattr(arguments, "names", ())):
        print(line)


def _data_check(arguments: argparse.Namespace, overrides: list[str]) -> None:
    from castream_jax.data.check import check_source, describe, write_sample
    from castream_jax.data.from_config import open_source, splits_of
    from castream_jax.experiment.config import base_config
    from castream_jax.runtime.progress import Progress

    data = base_config().data
    data.update(source=arguments.source, path=arguments.path, difficult=arguments.difficult, image_size=64)
    sources = {}
    for split in arguments.split or splits_of(arguments.source, arguments.path):
        data.update(train_split=split)
        side = split if arguments.source == "digits" else "train"
        sources[split] = open_source(data, side, rows="images")
    broken = 0
    for split, source in sources.items():
        progress = Progress(f"check {split}".strip(), total=len(source), unit="images")
        check = check_source(source, progress.pace, arguments.threads)
        sample = Path(f"{arguments.sample}-{split}.png" if split else f"{arguments.sample}.png").resolve()
        write_sample(source, sample)
        print(*([f"{arguments.source} {split}".strip(), *describe(check, source.class_names)]), sep="\n  ")
        print(f"  sample: {sample}", flush=True)
        broken += len(check.unreadable)
    if broken:
        raise ValueError(
            f"unreadable images: {broken}, named above; replace or remove them, or set data.on_error to 'skip'."
        )


def _config(arguments: argparse.Namespace, overrides: list[str]) -> Config:
    return override(open_config(arguments.config or Path(arguments.workdir) / "config.json"), overrides)


def _start(*processes: Any) -> None:
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # Orbax explains itself at length
    from castream_jax.runtime.compilation_cache import use_compilation_cache
    from castream_jax.runtime.cpu import prepare_cpu
    from castream_jax.runtime.processes import initialise_processes

    prepare_cpu()
    initialise_processes(*processes)
    use_compilation_cache()


def _print_results(summary: dict[str, Any], workdir: str) -> None:
    import jax
    from rich.console import Console

    from castream_jax.reporting import metric_table, write_report

    if jax.process_index() != 0:
        return  # only process 0 prints

    Console().print(metric_table(summary))
    print(write_report(Path(workdir).resolve()))


if __name__ == "__main__":
    sys.exit(main())
