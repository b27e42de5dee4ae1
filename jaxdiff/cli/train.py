"""`jaxdiff train`: flags come from an algorithm, defaults from a dataset's preset."""

import dataclasses
import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import Preset, TrainConfig
from jaxdiff.cli.flags import (
    DEVICES,
    ENVIRONMENT,
    HELP,
    PLATFORM,
    SEED,
    devices_of,
    replaced,
    require_seed,
    sentence,
)
from jaxdiff.cli.parsing import Flag, flags_of, parse, value_of, words_of
from jaxdiff.errors import UserError


def train_command(algorithm: str) -> Callable[[str, list[str]], None]:
    """Return the command that trains an algorithm."""

    def run(prog: str, args: list[str]) -> None:
        preset, source = value_of(args, "--preset"), value_of(args, "--config")
        if source is not None and preset is not None:
            raise UserError(
                "`preset` and `config` both choose all options; give one of them"
            )
        dataset = _dataset_of(algorithm, prog, args, source)
        start = _start(algorithm, dataset, preset, source)
        flags = _train_flags(start, by_habit=value_of(args, "--habit") is not None)
        asked = parse(prog, args, flags, _train_summary(algorithm))
        require_seed(asked["seed"])
        _run_training(algorithm, dataset, start, asked)

    return run


def _train_summary(algorithm: str) -> str:
    entry = ALGORITHMS[algorithm]
    return (
        f"Train {algorithm} on a dataset into a run folder: "
        f"{sentence(entry.summary)} Defaults are those of --preset for the data, which "
        "--dataset names or --habit records."
    )


def _dataset_of(algorithm: str, prog: str, args: list[str], source: str | None) -> Any:
    """Load or record the data that the arguments name; defaults depend on them."""
    from jaxdiff.habit import Habit
    from jaxdiff.tasks.lookup import Reading, load_dataset

    name, planner = value_of(args, "--dataset"), value_of(args, "--habit")
    if name is not None and planner is not None:
        raise UserError("`dataset` and `habit` both name the data; give one of them")
    idle = words_of(args, flags_of(Reading() if planner else Habit()))
    if idle:
        needed = "dataset" if planner else "habit"
        raise UserError(f"{idle[0]} has no effect without `{needed}`; leave it out")
    if planner is not None:
        if set(args) & set(HELP):
            return None  # nothing is played for help
        _check_first(algorithm, prog, args, source)
        return _recorded(prog, args, Path(planner))
    if name is None:
        return None
    flags = flags_of(Reading())
    reading = Reading(**parse(prog, words_of(args, flags), flags, ""))
    environment = value_of(args, "--environment")
    return load_dataset(name, download=True, environment=environment, reading=reading)


def _recorded(prog: str, args: list[str], planner: Path) -> Any:
    """Record what a run does."""
    from jaxdiff.habit import Habit, record_run
    from jaxdiff.run import load_run

    options = flags_of(Habit())
    flags = [*options, ENVIRONMENT, DEVICES, PLATFORM]
    asked = parse(prog, words_of(args, flags), flags, "")
    return record_run(
        load_run(planner),
        Habit(**{each.name: asked[each.name] for each in options}),
        devices=devices_of(asked["devices"], asked["platform"]),
        environment=asked["environment"],
    )


def _check_first(
    algorithm: str, prog: str, args: list[str], source: str | None
) -> None:
    """Refuse what is wrong whatever the data are, before a planner plays for them."""
    from jaxdiff.run_folder import is_fresh, taken

    flags = _train_flags(_start(algorithm, None, None, source), by_habit=True)
    # Only the data tell which learners there are.
    words = [word[2:].partition("=")[0] for word in args if word.startswith("--")]
    named = {word.replace("-", "_") for word in words if "." in word}
    more = sorted(named - {each.name for each in flags})
    flags += [Flag(name, str | None, "", None) for name in more]
    asked = parse(prog, args, flags, "")
    if not asked["resume"] and not is_fresh(asked["run"]):
        raise taken(asked["run"])


def _start(
    algorithm: str, dataset: Any, preset: str | None, source: str | None
) -> Preset:
    """Return the options to start from: of a preset, or of another run."""
    from jaxdiff.run import open_run
    from jaxdiff.tasks.lookup import find_preset, spec_of

    entry = ALGORITHMS[algorithm]
    if source is not None:
        path = Path(source)
        run = open_run(path.parent if path.name == "config.json" else path)
        if run.name != algorithm:
            raise UserError(
                f"{path} configures {run.name}, not {algorithm}; give `config` a run "
                f"of {algorithm}"
            )
        return Preset(run.config, run.acting, run.training, f"taken from {path}")
    if dataset is not None:
        return find_preset(algorithm, dataset, spec_of(dataset), preset)
    return Preset(entry.config(), entry.acting(), {})


def _train_flags(start: Preset, *, by_habit: bool) -> list[Flag]:
    from jaxdiff.habit import Habit
    from jaxdiff.tasks.lookup import Reading

    dataset = Flag("dataset", str, "Recipe, Minari id or path.")
    if by_habit:
        dataset = dataset._replace(kind=str | None, default=None)
    trained = flags_of(start.config)
    names = [each.name for each in trained]
    learners = start.training or {"each learner": TrainConfig()}
    shared = [
        each._replace(
            kind=each.kind | None,
            default=None,
            text=f"{each.text} By default: " + _by_learner(learners, each.name),
        )
        for each in flags_of(TrainConfig)
    ]
    own = [
        Flag(
            f"{name}.{each.name}",
            each.kind,
            f"The same, of the learner {name} alone.",
            None,
        )
        for name in (start.training if len(start.training) > 1 else ())
        for each in shared
    ]
    return [
        dataset,
        Flag("habit", Path | None,
             "Learn what this run does, in place of a dataset.", None),
        Flag("run", Path, "Folder for checkpoints, metrics and pictures."),
        ENVIRONMENT,
        Flag("resume", bool, "Go on with the run in the folder.", False),
        SEED,
        Flag("preset", str | None, "Defaults: demo, released, paper, generic.", None),
        Flag("config", Path | None, "Take all options from this run.", None),
        Flag("eval_episodes", int, "Episodes of an evaluation, see --eval-every.", 20),
        DEVICES, PLATFORM, *shared, *own, *trained,
        *flags_of(start.acting, without=names), *flags_of(Reading()),
        *flags_of(Habit()),
    ]  # fmt: skip


def _by_learner(learners: Mapping[str, TrainConfig], name: str) -> str:
    values = {learner: getattr(config, name) for learner, config in learners.items()}
    if len(set(values.values())) == 1:
        return str(next(iter(values.values())))
    return ", ".join(f"{learner} {value}" for learner, value in values.items())


def _run_training(
    algorithm: str, dataset: Any, start: Preset, asked: dict[str, Any]
) -> None:
    from jaxdiff.training import train_run, trained

    given = {name: value for name, value in asked.items() if value is not None}
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    training: dict[str, Any] = {name: given[name] for name in fields & given.keys()}
    for name in start.training:
        own = {field: given.get(f"{name}.{field}") for field in fields}
        training[name] = {k: v for k, v in own.items() if v is not None}
    config = replaced(start.config, asked)
    acting = replaced(start.acting, asked, without=vars(start.config))
    configs = trained(start.training, training)
    options = Preset(config, acting, configs, start.name)
    slices = getattr(config, "accumulate", 1)
    batch = math.gcd(*(each.batch_size // slices for each in configs.values()))
    devices = devices_of(asked["devices"], asked["platform"], batch=batch)
    run = train_run(
        algorithm, dataset, asked["run"], preset=options,
        environment=asked["environment"], seed=asked["seed"], devices=devices,
        resume=asked["resume"], eval_episodes=asked["eval_episodes"],
    )  # fmt: skip
    print(f"trained into {run.path}")
    if dataset.evaluation is not None:
        words = ["jaxdiff evaluate", shlex.quote(str(run.path))]
        if asked["environment"] is not None:
            words += ["--environment", shlex.quote(asked["environment"])]
        print("score it with:", *words)
