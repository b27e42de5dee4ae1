"""The `jaxdiff` command: words and options in, one function of the library called.

Importing this module loads neither JAX devices nor a simulator, so that the options can
still decide on both.
"""

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from jaxdiff.devices import request_cpu_devices, select_devices
from jaxdiff.errors import UserError

Devices = Annotated[
    int | None,
    tyro.conf.arg(help="devices to use; on CPU, virtual ones (default: all cores)"),
]


class Command(NamedTuple):
    """One command: what it says of itself, and how its arguments are read and run."""

    summary: str
    run: Callable[[str, list[str]], None]


def main(args: list[str] | None = None) -> None:
    """Run the command; a user's error is one sentence on stderr and exit code 2."""
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    args = [value for value in args if value != "--debug"]
    try:
        _dispatch(args)
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"jaxdiff: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("jaxdiff: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _dispatch(args: list[str]) -> None:
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in COMMANDS and len(args) >= words:
            COMMANDS[name].run(f"jaxdiff {name}", args[words:])
            return
    if args and args[0] in ("--version", "-V"):
        from jaxdiff import __version__

        print(__version__)
        return
    if args and args[0] not in ("--help", "-h"):
        raise UserError(
            f"There is no command {' '.join(args[:2])!r}: choose one of "
            f"{', '.join(COMMANDS)}, and add --help for its options."
        )
    print("usage: jaxdiff COMMAND [OPTIONS]\n")
    width = max(map(len, COMMANDS))
    for name, command in COMMANDS.items():
        print(f"  {name:<{width}}  {command.summary}")
    print("\n`jaxdiff COMMAND --help` lists the options of a command.")


def _function(function: Callable[..., None]) -> Command:
    """A command whose options are the parameters of a function."""

    def run(prog: str, args: list[str]) -> None:
        tyro.cli(function, prog=prog, args=args)

    return Command((function.__doc__ or "").splitlines()[0], run)


# -------------------------------------------------------------------------- commands


def demo(
    *,
    out: Path = Path("demo"),
    episodes: int = 100,
    num_steps: int | None = None,
    seed: int = 0,
    devices: Devices = None,
) -> None:
    """Make PointMaze data, train Diffuser, plan, act in MuJoCo, and draw it all.

    Args:
      out: folder for data, run, pictures and demo.json.
      episodes: episodes played for the score.
      num_steps: updates; fewer for a quicker look.
      seed: of everything random.
      devices: devices to use.
    """
    chosen = _devices(devices)
    from jaxdiff.demo import demo as run_demo

    result = run_demo(
        out, episodes=episodes, num_steps=num_steps, seed=seed, devices=chosen
    )
    _table(result)


def data_make(
    recipe: Positional[str],
    /,
    *,
    steps: int = 1_000_000,
    seed: int = 0,
    noise: float = 0.5,
    root: Path | None = None,
) -> None:
    """Make a dataset with a real simulator, such as pointmaze-umaze.

    Args:
      recipe: name of the dataset.
      steps: transitions.
      seed: of everything random.
      noise: standard deviation of the noise on the expert's actions.
      root: folder of datasets; MINARI_DATASETS_PATH or Minari's own by default.
    """
    from jaxdiff.data.make import RECIPES

    if recipe not in RECIPES:
        raise UserError(
            f"There is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}."
        )
    path = RECIPES[recipe].make(steps=steps, seed=seed, noise=noise, root=root)
    print(f"{recipe} is in {path}")


def evaluate(
    run: Positional[Path],
    /,
    *,
    episodes: int = 100,
    setting: Literal["multi", "single"] = "multi",
    seed: int = 1_000,
    best: bool = False,
    num_envs: int = 50,
    devices: Devices = None,
    choose: Literal["fixed", "earliest"] | None = None,
    candidates: int | None = None,
    replan_every: int | None = None,
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] | None = None,
    sampling_steps: int | None = None,
) -> None:
    """Play episodes with a trained run and score them.

    Args:
      run: the run folder.
      episodes: how many.
      setting: a random goal each episode, or D4RL's fixed goal.
      seed: of the first episode.
      best: use the best checkpoint instead of the newest.
      num_envs: environments side by side.
      devices: devices to use.
      choose: overrides how a plan is chosen.
      candidates: overrides the plans made for each problem.
      replan_every: overrides the steps between two plans.
      sampler: overrides the sampler.
      sampling_steps: overrides its steps.
    """
    chosen = _devices(devices)
    from jaxdiff.evaluate import evaluate_maze, save_evaluation
    from jaxdiff.run import load_run

    overrides = {
        "choose": choose,
        "candidates": candidates,
        "replan_every": replan_every,
        "sampler": sampler,
        "sampling_steps": sampling_steps,
    }
    overrides = {name: value for name, value in overrides.items() if value is not None}
    loaded = load_run(run, best=best, overrides=overrides)
    record, _ = evaluate_maze(
        loaded,
        episodes=episodes,
        setting=setting,
        seed=seed,
        num_envs=num_envs,
        devices=chosen,
    )
    path = save_evaluation(loaded, {**record, "seed": seed, "overrides": overrides})
    _table(record)
    print(f"written to {path}")


def plan(
    run: Positional[Path],
    /,
    *,
    start: str,
    goal: str,
    xy: bool = False,
    horizon: int | None = None,
    candidates: int = 8,
    seed: int = 0,
    best: bool = False,
    figure: Path | None = None,
    out: Path | None = None,
) -> None:
    """Plan from a start to a goal in a maze.

    Args:
      run: the run folder.
      start: maze cell "row,col"; with --xy metres "x,y".
      goal: likewise.
      xy: read start and goal as metres.
      horizon: steps of the plan, one that the run declares.
      candidates: plans made; the most consistent is shown.
      seed: of the plans' noise.
      best: use the best checkpoint instead of the newest.
      figure: draw the plans here (PNG).
      out: write the plans here (NPZ).
    """
    from jaxdiff.plan import plan as make_plan
    from jaxdiff.plan import save_plans
    from jaxdiff.run import load_run, require_maze

    loaded = load_run(run, best=best)
    maze = require_maze(loaded)
    ends = [
        _point(maze, name, text, xy)
        for name, text in (("start", start), ("goal", goal))
    ]
    plans = make_plan(loaded, *ends, horizon=horizon, candidates=candidates, seed=seed)
    if out is not None:
        save_plans(plans, out)
    if figure is not None:
        from jaxdiff import figures

        shown = plans.observations[:4, :, :2]
        titles = [f"inconsistency {value:.2f}" for value in plans.inconsistency[:4]]
        drawn = figures.draw_plans(
            maze,
            shown,
            starts=[ends[0]] * len(shown),
            goals=[ends[1]] * len(shown),
            titles=titles,
        )
        figures.save(drawn, figure)
    best_plan = plans.observations[0]
    length = float(abs(best_plan[1:, :2] - best_plan[:-1, :2]).sum())
    _table(
        {
            "horizon": len(best_plan),
            "candidates": candidates,
            "feasible": int(plans.feasible.sum()),
            "inconsistency": float(plans.inconsistency[0]),
            "path_length": length,
        }
    )


def _train(algorithm: str) -> Command:
    """A training command; its defaults depend on --preset, --dataset and --config."""

    def run(prog: str, args: list[str]) -> None:
        from jaxdiff.presets import preset

        chosen = _value_of(args, "--preset") or "demo"
        source = _value_of(args, "--config")
        config, training = preset(algorithm, chosen, _value_of(args, "--dataset") or "")
        if source is not None:
            config, training = _read_config(Path(source), algorithm, config, training)

        @dataclasses.dataclass(frozen=True)
        class Options:
            dataset: str
            """Recipe, Minari id or path."""
            run: Path
            """Folder for checkpoints, metrics and pictures."""
            resume: bool = False
            """Go on with the run in the folder."""
            seed: int = 0
            """Of everything random."""
            preset: str = chosen
            """Which defaults: demo, released or paper."""
            config: Path | None = None
            """Take all options from the config.json of another run."""
            devices: Devices = None
            eval_episodes: int = 20
            """Episodes of an evaluation during training, see --eval-every."""
            algorithm: OmitArgPrefixes[type(config)] = config
            training: OmitArgPrefixes[type(training)] = training

        options = tyro.cli(Options, prog=prog, args=args)
        _run_training(algorithm, options)

    return Command(f"Train {algorithm} on a dataset into a run folder.", run)


def _run_training(algorithm: str, options: Any) -> None:
    devices = _devices(options.devices)
    from jaxdiff.data.episodes import load_dataset
    from jaxdiff.evaluate import evaluate_maze
    from jaxdiff.run import maze_of, train_run

    def score(run: Any) -> tuple[str, float]:
        record, _ = evaluate_maze(run, episodes=options.eval_episodes, devices=devices)
        return "score", record["score"]

    dataset = load_dataset(options.dataset, download=True)
    run = train_run(
        algorithm,
        dataset,
        options.run,
        config=options.algorithm,
        training=options.training,
        seed=options.seed,
        devices=devices,
        resume=options.resume,
        evaluate=score,
    )
    print(f"trained into {run.path}")
    if maze_of(run) is not None:
        print(f"score it with: jaxdiff evaluate {run.path}")


COMMANDS: dict[str, Command] = {
    "demo": _function(demo),
    "data make": _function(data_make),
    "train diffuser": _train("diffuser"),
    "evaluate": _function(evaluate),
    "plan": _function(plan),
}


# --------------------------------------------------------------------------- helpers


def _devices(count: int | None) -> list[Any]:
    """Chooses devices before JAX touches any: on CPU, one virtual device a core."""
    request_cpu_devices(count or len(os.sched_getaffinity(0)))
    return select_devices(count)


def _point(maze: Any, name: str, text: str, xy: bool) -> Any:
    """Read "row,col", or "x,y" in metres, as a position."""
    from jaxdiff.envs.pointmaze import cell_to_xy

    kind = float if xy else int
    try:
        first, second = (kind(part) for part in text.split(","))
    except ValueError:
        form = "x,y in metres" if xy else "row,col of a cell"
        raise UserError(
            f"--{name} is {text!r}: write it as {form}, such as 1,1."
        ) from None
    point = (first, second)
    return point if xy else cell_to_xy(maze, point)


def _value_of(args: list[str], flag: str) -> str | None:
    """The value of one flag, read before the defaults of all others are known."""
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(f"{flag}="):
            return arg.partition("=")[2]
    return None


def _read_config(path: Path, algorithm: str, config: Any, training: Any) -> Any:
    """Take the options of another run from its config.json."""
    from jaxdiff.run import from_plain

    try:
        document = json.loads(path.read_text())
        if document["algorithm"] != algorithm:
            raise ValueError(f"it configures {document['algorithm']}")
        return (
            from_plain(type(config), document["config"]),
            from_plain(type(training), document["training"]),
        )
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give --config the config.json "
            "of a run."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no configuration for {algorithm} ({error}): give --config the "
            "config.json of a run of it."
        ) from error


def _table(record: dict[str, Any]) -> None:
    width = max(map(len, record))
    for name, value in record.items():
        if isinstance(value, tuple | list):
            value = " to ".join(f"{v:.4g}" for v in value)
        elif isinstance(value, float):
            value = f"{value:.4g}"
        print(f"{name:<{width}}  {value}")
