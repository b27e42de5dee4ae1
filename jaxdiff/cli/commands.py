"""The commands: each reads its flags and calls one function of the library.

Flags are built from what is registered: options of algorithms, tasks and recipes. The
defaults of a training command come from the preset of its dataset, those of `evaluate`
and `plan` from the run.
"""

import dataclasses
import math
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import Preset, TrainConfig
from jaxdiff.cli.parsing import Flag, flags_of, parse, table, value_of, words_of
from jaxdiff.data.episodes import acted_rows
from jaxdiff.data.oddities import oddities
from jaxdiff.devices import request_cpu_devices, select_devices
from jaxdiff.errors import UserError, writing

_HELP = ("--help", "-h")
_RUN = Flag("run", Path, "The run folder.", positional=True)
_ROOT = Flag(
    "root", str | None,
    "Folder of datasets; MINARI_DATASETS_PATH or Minari's own by default.", None,
)  # fmt: skip
_SEED = Flag("seed", int, "Seed of everything random.", 0)
_BEST = Flag("best", bool, "Use the best checkpoint instead of the newest.", False)
_DEVICES = Flag(
    "devices", int | None,
    "Number of devices to use; on a CPU, virtual ones, by default one a core.", None,
)  # fmt: skip
_PLATFORM = Flag(
    "platform", Literal["cpu", "gpu", "tpu"] | None,
    "Kind of device; by default the one that JAX prefers.", None,
)  # fmt: skip
_ENVIRONMENT = Flag(
    "environment", str | None,
    "Gymnasium id to play, `Id` or `module:Id`; by default that of the dataset.", None,
)  # fmt: skip
_TRUST = Flag(
    "trust", bool,
    "Import the module that the run's own environment `module:Id` names.", False,
)  # fmt: skip


class Command(NamedTuple):
    """One command.

    Attributes:
      summary: what it does, one line.
      run: `(name in messages, arguments) -> None`.
    """

    summary: str
    run: Callable[[str, list[str]], None]


def commands() -> dict[str, Command]:
    """Return every command by name, those of registered algorithms included."""
    return {
        "demo": Command(
            "Make data, train, plan, act in MuJoCo and draw it all.", _demo
        ),
        "list": Command("List recipes, datasets, algorithms and presets.", _list),
        "data make": Command("Record a dataset with a simulator.", _data_make),
        "data info": Command("Describe a dataset: size, ranges, returns.", _data_info),
        **{
            f"train {name}": Command(_sentence(entry.summary), _train(name))
            for name, entry in ALGORITHMS.items()
        },
        "evaluate": Command("Play episodes with a run and score them.", _evaluate),
        "tune-guidance": Command("Try settings of guidance side by side.", _tune),
        "plan": Command("Plan from a start, perhaps to a goal.", _plan),
    }


# ------------------------------------------------------------------------------ data


def _demo(prog: str, args: list[str]) -> None:
    from jaxdiff.demo import BATCH, demo

    flags = [
        Flag("out", Path, "Folder for data, run and pictures.", Path("demo")),
        Flag("episodes", int, "Episodes to play for the score.", 100),
        Flag("num_steps", int | None, "Updates; fewer for a quicker look.", None),
        _SEED, _DEVICES, _PLATFORM,
    ]  # fmt: skip
    asked = parse(prog, args, flags, "Make data, train, plan, act in MuJoCo and draw.")
    _require_seed(asked["seed"])
    devices = _devices(asked.pop("devices"), asked.pop("platform"), batch=BATCH)
    table(demo(asked.pop("out"), devices=devices, **asked))


def _list(prog: str, args: list[str]) -> None:
    from jaxdiff.data.locate import datasets_root, local_datasets
    from jaxdiff.tasks.lookup import TASKS, recipes

    root = parse(prog, args, [_ROOT], "List recipes, datasets and algorithms.")["root"]
    stored = local_datasets(root)
    presets = {
        f"presets of {name}": ", ".join(
            f"{algorithm} ({', '.join(names)})"
            for algorithm, names in _presets_by_algorithm(task).items()
        )
        or "none; generic serves"
        for name, task in TASKS.items()
    }
    table(
        {
            "recipes": ", ".join(
                f"{name} (made)" if recipe.dataset_id in stored else name
                for name, recipe in recipes().items()
            ),
            f"datasets in {datasets_root(root)}": ", ".join(stored) or "none",
            "algorithms": ", ".join(ALGORITHMS),
            "tasks": ", ".join(TASKS),
            **presets,
        }
    )


def _presets_by_algorithm(task: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for algorithm, name in task.presets:
        found.setdefault(algorithm, []).append(name)
    return found


def _data_make(prog: str, args: list[str]) -> None:
    from jaxdiff.tasks.lookup import recipes

    known = recipes()
    name = next((arg for arg in args if not arg.startswith("-")), None)
    if name is None:
        print(f"usage: {prog} RECIPE [OPTIONS]\n\nRecord a dataset with a simulator.")
        print(f"\nRecipes: {', '.join(known)}")
        print(f"\n`{prog} RECIPE --help` lists the options of a recipe.")
        if not set(args) & set(_HELP):
            raise UserError("name a recipe to make")
        return
    if name not in known:
        raise UserError(
            f"there is no recipe {name!r}; choose one of {', '.join(known)}"
        )
    recipe = known[name]
    flags = [
        Flag("recipe", str, "Name of the dataset.", positional=True),
        Flag("steps", int, "Number of transitions.", recipe.steps),
        _SEED, _ROOT, *flags_of(recipe.options),
    ]  # fmt: skip
    asked = parse(prog, args, flags, f"Record the dataset {recipe.dataset_id}.")
    _require_seed(asked["seed"])
    names = [field.name for field in dataclasses.fields(recipe.options)]
    options = recipe.options(**{name: asked[name] for name in names})
    path = recipe.make(
        steps=asked["steps"], seed=asked["seed"], root=asked["root"],
        **{name: getattr(options, name) for name in names},
    )  # fmt: skip
    print(f"{name} is in {path}")


_MOST_COLUMNS = 200  # of a field that are listed one by one; pictures have more


def _data_info(prog: str, args: list[str]) -> None:
    from jaxdiff.tasks.lookup import Reading, load_dataset

    flags = [
        Flag("dataset", str, "Recipe, Minari id or path.", positional=True), _ROOT,
        *flags_of(Reading()),
    ]  # fmt: skip
    asked = parse(prog, args, flags, "Describe a dataset.")
    dataset = load_dataset(
        asked["dataset"], root=asked["root"], reading=_replaced(Reading(), asked)
    )
    episodes = dataset.episodes
    lengths = episodes.lengths
    returns = np.add.reduceat(episodes.rewards.astype(np.float64), episodes.starts)
    environment, evaluation = dataset.environment, dataset.evaluation
    table(
        {
            "name": dataset.name,
            "environment": environment.id if environment else "unknown",
            "evaluation": evaluation.id if evaluation else "unknown",
            "observation shape": "x".join(map(str, dataset.observation_shape)),
            "fingerprint": dataset.fingerprint,
            "episodes": len(lengths),
            "steps": int(lengths.sum()),
            "episode length": (float(lengths.min()), float(lengths.max())),
            "terminated": int(episodes.terminated.sum()),
            "return, mean": float(returns.mean()),
            "return, range": (float(returns.min()), float(returns.max())),
            **{
                f"mean return, {policy}": float(value)
                for policy, value in dataset.references.items()
            },
        }
    )
    _print_ranges(episodes)
    for oddity in oddities(episodes):
        print(f"odd: {oddity}")


def _print_ranges(episodes: Any) -> None:
    acted = acted_rows(episodes)
    print(f"\n{'field':<16}{'smallest':>12}{'mean':>12}{'largest':>12}")
    for field in ("observations", "actions", "rewards", "goals"):
        array = getattr(episodes, field)
        if array is None:
            continue
        if field in ("actions", "rewards"):
            array = array[acted]  # the others are padding
        columns = {
            f"{field} {i}": column
            for i, column in enumerate(array.reshape(len(array), -1).T)
        }
        if len(columns) > _MOST_COLUMNS:
            columns = {f"{field}, all": array}
        for label, column in columns.items():
            mean = float(column.mean(dtype=np.float64))
            low, high = float(column.min()), float(column.max())
            print(f"{label:<16}{low:>12.4g}{mean:>12.4g}{high:>12.4g}")


# -------------------------------------------------------------------------- training


def _train(algorithm: str) -> Callable[[str, list[str]], None]:
    def run(prog: str, args: list[str]) -> None:
        dataset, preset = _dataset_of(prog, args), value_of(args, "--preset")
        source = value_of(args, "--config")
        if source is not None and preset is not None:
            raise UserError(
                "`preset` and `config` both choose all options; give one of them"
            )
        start = _start(algorithm, dataset, preset, source)
        asked = parse(prog, args, _train_flags(start), _train_summary(algorithm))
        _require_seed(asked["seed"])
        _run_training(algorithm, dataset, start, asked)

    return run


def _sentence(text: str) -> str:
    """Begin a text with a capital letter and end it with one full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _train_summary(algorithm: str) -> str:
    entry = ALGORITHMS[algorithm]
    return (
        f"Train {algorithm} on a dataset into a run folder: "
        f"{_sentence(entry.summary)} Defaults are those of --preset for --dataset."
    )


def _dataset_of(prog: str, args: list[str]) -> Any:
    """Load the dataset that the arguments name, because defaults depend on it."""
    from jaxdiff.tasks.lookup import Reading, load_dataset

    name = value_of(args, "--dataset")
    if name is None:
        return None
    flags = flags_of(Reading())
    reading = Reading(**parse(prog, words_of(args, flags), flags, ""))
    environment = value_of(args, "--environment")
    return load_dataset(name, download=True, environment=environment, reading=reading)


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


def _train_flags(start: Preset) -> list[Flag]:
    from jaxdiff.tasks.lookup import Reading

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
        Flag("dataset", str, "Recipe, Minari id or path."),
        Flag("run", Path, "Folder for checkpoints, metrics and pictures."),
        _ENVIRONMENT,
        Flag("resume", bool, "Go on with the run in the folder.", False),
        _SEED,
        Flag("preset", str | None, "Defaults: demo, released, paper, generic.", None),
        Flag("config", Path | None, "Take all options from this run.", None),
        Flag("eval_episodes", int, "Episodes of an evaluation, see --eval-every.", 20),
        _DEVICES, _PLATFORM, *shared, *own, *trained,
        *flags_of(start.acting, without=names), *flags_of(Reading()),
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
    config = _replaced(start.config, asked)
    acting = _replaced(start.acting, asked, without=vars(start.config))
    configs = trained(start.training, training)
    options = Preset(config, acting, configs, start.name)
    slices = getattr(config, "accumulate", 1)
    batch = math.gcd(*(each.batch_size // slices for each in configs.values()))
    devices = _devices(asked["devices"], asked["platform"], batch=batch)
    run = train_run(
        algorithm, dataset, asked["run"], preset=options,
        environment=asked["environment"], seed=asked["seed"], devices=devices,
        resume=asked["resume"], eval_episodes=asked["eval_episodes"],
    )  # fmt: skip
    print(f"trained into {run.path}")
    if dataset.evaluation is not None:
        print(f"score it with: jaxdiff evaluate {run.path}")


def _replaced(options: Any, asked: Mapping[str, Any], without: Any = ()) -> Any:
    """Give options the values that were asked for."""
    names = [field.name for field in dataclasses.fields(options)]
    return dataclasses.replace(
        options, **{name: asked[name] for name in names if name not in without}
    )


# ---------------------------------------------------------------------------- acting


def _evaluate(prog: str, args: list[str]) -> None:
    from jaxdiff.evaluation import evaluate, options_of, save_evaluation
    from jaxdiff.run import load_run

    common = [
        _RUN,
        Flag("episodes", int, "How many; a task may count something else.", 100),
        _SEED._replace(default=1_000, text="Seed of the first episode."),
        _BEST,
        Flag("num_envs", int, "Environments to play side by side.", 100),
        _ENVIRONMENT, _TRUST, _DEVICES, _PLATFORM,
    ]  # fmt: skip
    summary = "Play episodes with a trained run and score them."
    opened = _opened(prog, args, common, summary)
    if opened is None:
        return
    task, acting = opened
    own = flags_of(task.options)
    taken = {each.name for each in (*common, *own)}
    flags = [*common, *own, *flags_of(acting, without=tuple(taken))]
    asked = parse(prog, args, flags, summary)
    _require_seed(asked["seed"])
    overrides = _overrides(acting, asked)
    devices = _devices(asked["devices"], asked["platform"])
    run = load_run(asked["run"], best=asked["best"], overrides=overrides)
    options = {each.name: asked[each.name] for each in own}
    record, _ = evaluate(
        run, episodes=asked["episodes"], seed=asked["seed"],
        num_envs=asked["num_envs"], options=options_of(task, run, options),
        devices=devices, environment=asked["environment"], trust=asked["trust"],
    )  # fmt: skip
    path = save_evaluation(run, {**record, "overrides": overrides})
    table(record)
    print(f"written to {path}")


def _opened(
    prog: str, args: list[str], common: list[Flag], summary: str
) -> tuple[Any, Any] | None:
    """Return the task and the acting options of the run that the arguments name.

    Without a run there is only help, which lists what runs may add.
    """
    from jaxdiff.data.spec import Environment
    from jaxdiff.run import open_run
    from jaxdiff.tasks.lookup import TASKS, task_of

    words = [arg for arg in args if not arg.startswith("-")]
    runs = [word for word in words if (Path(word) / "config.json").is_file()]
    if not runs and (set(args) & set(_HELP) or not words):
        if not set(args) & set(_HELP):
            parse(prog, args, common, summary)
        print(f"usage: {prog} RUN [OPTIONS]\n\n{summary}\n")
        _print_flags("options", common)
        for name, task in TASKS.items():
            _print_flags(f"options in the task {name}", flags_of(task.options))
        for name, entry in ALGORITHMS.items():
            _print_flags(f"options of runs of {name}", flags_of(entry.acting))
        return None
    opened = open_run(Path(runs[0] if runs else words[0]))
    name = value_of(args, "--environment")
    environment = opened.environment() if name is None else Environment(name)
    return task_of(environment), opened.acting


def _print_flags(title: str, flags: list[Flag]) -> None:
    if not flags:
        return
    print(f"{title}:")
    for each in flags:
        name = each.name.upper() if each.positional else f"--{each.name}"
        print(f"  {name.replace('_', '-'):<24} {each.text}")
    print()


def _overrides(acting: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the acting options that were asked for and differ from the run's."""
    return {
        field.name: asked[field.name]
        for field in dataclasses.fields(acting)
        if field.name in asked and asked[field.name] != getattr(acting, field.name)
    }


def _tune(prog: str, args: list[str]) -> None:
    from jaxdiff.run import load_run
    from jaxdiff.tune import default_stops, tune_guidance

    common = [
        _RUN,
        Flag("scales", tuple[float, ...], "Values of --guide-scale to try.",
             (0.0, 1e-4, 1e-3, 1e-2, 1e-1)),
        Flag("stops", tuple[int, ...] | None, 
             "Values of --guide-stop; by default 0, half of all levels and 3/4.", None),
        Flag("steps", tuple[int, ...], "Values of --guide-steps.", (1, 2)),
        Flag("episodes", int, "Episodes to play with every setting.", 4),
        Flag("max_steps", int, "Steps after which an episode is cut.", 200),
        _SEED, _BEST, _ENVIRONMENT, _TRUST, _PLATFORM,
    ]  # fmt: skip
    summary = "Try settings of guidance side by side in the run's environment."
    opened = _opened(prog, args, common, summary)
    if opened is None:
        return
    taken = tuple(each.name for each in common)
    flags = [*common, *flags_of(opened[1], without=taken)]
    asked = parse(prog, args, flags, summary)
    _require_seed(asked["seed"])
    _devices(1, asked["platform"])
    overrides = _overrides(opened[1], asked)
    run = load_run(asked["run"], best=asked["best"], overrides=overrides)
    record = tune_guidance(
        run,
        scales=asked["scales"],
        stops=default_stops(run) if asked["stops"] is None else asked["stops"],
        steps=asked["steps"],
        episodes=asked["episodes"],
        max_steps=asked["max_steps"],
        seed=asked["seed"],
        environment=asked["environment"],
        trust=asked["trust"],
    )
    print(f"drawn in {run.path / 'figures' / 'guidance.png'}")
    if record["best"] is None:
        raise UserError(
            "the actions of every setting were not finite; try smaller numbers with "
            "`scales`, or train for longer"
        )
    table(record["best"])
    found = {name: record["best"][name] for name in _TUNED}
    flags = [_written(name, value) for name, value in {**overrides, **found}.items()]
    same = ("environment", "best", "trust")
    flags += [_written(name, asked[name]) for name in same if asked[name]]
    command = ["jaxdiff evaluate", shlex.quote(str(run.path)), *flags]
    print(f"score it with: {' '.join(command)}")


_TUNED = ("guide_scale", "guide_stop", "guide_steps")


def _written(name: str, value: Any) -> str:
    """Write a flag as a command takes it."""
    spelled = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{spelled}" if value else f"--no-{spelled}"
    words = value if isinstance(value, tuple | list) else [value]
    return " ".join([f"--{spelled}", *(shlex.quote(str(word)) for word in words)])


def _plan(prog: str, args: list[str]) -> None:
    from jaxdiff import figures
    from jaxdiff.plans import plan, save_plans
    from jaxdiff.run import load_run

    common = [
        _RUN,
        Flag("horizon", int | None, "Steps of the plan, one the run declares.", None),
        Flag("candidates", int, "Plans to make; the best is shown.", 8),
        _SEED, _BEST, _PLATFORM,
        Flag("figure", Path | None, "Draw the plans into this file.", None),
        Flag("out", Path | None, "Write the plans into this NPZ file.", None),
    ]  # fmt: skip
    summary = "Plan from a start, perhaps to a goal."
    opened = _opened(prog, args, common, summary)
    if opened is None:
        return
    task, acting = opened
    if task.question is None:
        raise UserError(f"nothing can be planned in the task {task.name}")
    own = flags_of(task.question.options)
    taken = {each.name for each in (*common, *own)}
    flags = [*common, *own, *flags_of(acting, without=tuple(taken))]
    asked = parse(prog, args, flags, summary)
    _require_seed(asked["seed"])
    _devices(None, asked["platform"])
    overrides = _overrides(acting, asked)
    overrides.pop("candidates", None)
    run = load_run(asked["run"], best=asked["best"], overrides=overrides)
    words = task.question.options(**{each.name: asked[each.name] for each in own})
    request = task.question.read(words, run)
    plans = plan(
        run, request.start, request.goal,
        horizon=asked["horizon"], candidates=asked["candidates"], seed=asked["seed"],
        **request.options,
    )  # fmt: skip
    if asked["out"] is not None:
        save_plans(plans, asked["out"])
    if asked["figure"] is not None:
        if request.draw is None:
            raise UserError(
                f"plans in the task {task.name} cannot be drawn; leave out `figure`"
            )
        with writing(asked["figure"], "name another file with `figure`"):
            figures.save(request.draw(plans), asked["figure"])
    record: dict[str, Any] = {
        "horizon": len(plans.observations[0]),
        "candidates": asked["candidates"],
        "dynamics_error": float(plans.dynamics_error[0]),
    }
    position = list(run.spec.layout.position)
    if position:
        steps = np.diff(plans.observations[0][:, position], axis=0)
        record["path_length"] = float(np.linalg.norm(steps, axis=-1).sum())
    if plans.expected_return is not None:
        record["expected_return"] = float(plans.expected_return[0])
    table(record)


# --------------------------------------------------------------------------- devices


def _devices(
    count: int | None, platform: str | None = None, *, batch: int | None = None
) -> list[Any]:
    """Choose devices before JAX touches any: on a CPU, one virtual device a core.

    Without a count, as many are taken as divide a batch of `batch` examples.
    """
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")  # leave an accelerator alone
    request_cpu_devices(count or _cores())
    devices = select_devices(count, platform=platform)
    if platform is not None:
        jax.config.update("jax_default_device", devices[0])
    if count is None and batch is not None:
        devices = devices[: math.gcd(len(devices), batch)]
    return devices


def _cores() -> int:
    """Return the cores this process may use, at most 8: more devices gain nothing."""
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


def _require_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise UserError(f"`seed` is {seed}; it must be between 0 and {2**31 - 1}")
