"""The `jaxdiff` command: words and options in, one function of the library called.

Importing this module loads neither JAX devices nor a simulator, so that the options can
still decide on both.
"""

import contextlib
import dataclasses
import functools
import io
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import jax
import numpy as np
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from jaxdiff import __version__
from jaxdiff.devices import request_cpu_devices, select_devices
from jaxdiff.errors import UserError, reason
from jaxdiff.options import from_plain
from jaxdiff.tasks.pointmaze.world import Setting

Devices = Annotated[
    int | None,
    tyro.conf.arg(help="devices to use; on CPU, virtual ones (default: all cores)"),
]
Platform = Annotated[
    Literal["cpu", "gpu", "tpu"] | None,
    tyro.conf.arg(help="kind of device (default: the one that JAX prefers)"),
]
C = TypeVar("C")
T = TypeVar("T")


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
        return
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except BrokenPipeError:
        # Whoever reads the output has heard enough; Python must not flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (UserError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
        if debug:
            traceback.print_exc()
        message, code = _sentence(error), 2
    print("jaxdiff:", *message.split(), file=sys.stderr)
    raise SystemExit(code)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename} cannot be used" if error.filename else "failed"
        return f"{where} ({reason(error)}); mend it, or see where with --debug"
    if isinstance(error, MemoryError | jax.errors.JaxRuntimeError):
        advice = "if memory ran out, choose smaller sizes; --debug shows where"
        return f"the machine cannot do this ({reason(error)}); {advice}"
    return str(error)


def _dispatch(args: list[str]) -> None:
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in COMMANDS and len(args) >= words:
            COMMANDS[name].run(f"jaxdiff {name}", args[words:])
            return
    if args and args[0] in ("--version", "-V"):
        print(__version__)
        return
    group = {
        name: command
        for name, command in COMMANDS.items()
        if args and name.startswith(f"{args[0]} ")
    }
    if args and not group and args[0] not in _HELP:
        raise UserError(
            f"there is no command {args[0]!r}; choose one of {', '.join(COMMANDS)}, "
            "and add --help for its options"
        )
    if group and args[1:] and args[1] not in _HELP:
        raise UserError(
            f"there is no command {' '.join(args[:2])!r}; choose one of "
            f"{', '.join(group)}"
        )
    shown = group or COMMANDS
    print("usage: jaxdiff COMMAND [OPTIONS]\n")
    width = max(map(len, shown))
    for name, command in shown.items():
        print(f"  {name:<{width}}  {command.summary}")
    print("\n`jaxdiff COMMAND --help` lists the options of a command.")
    print("--debug, in any command, shows where an error came from.")


_HELP = ("--help", "-h")


def _function(function: Callable[..., None]) -> Command:
    """A command whose options are the parameters of a function."""

    # tyro calls what it parses for; here it only binds the arguments.
    @functools.wraps(function)
    def bind(*args: Any, **options: Any) -> Callable[[], None]:
        _require_seed(options.get("seed", 0))
        return functools.partial(function, *args, **options)

    def run(prog: str, args: list[str]) -> None:
        _parse(bind, prog, args)()

    return Command((function.__doc__ or "").splitlines()[0], run)


def _parse(kind: Any, prog: str, args: list[str], **options: Any) -> Any:
    """Read arguments by tyro, whose picture of an error becomes one sentence."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(kind, prog=prog, args=args, **options)
    except SystemExit as end:
        if not end.code:
            raise
    # A title, then sections between rules: what is wrong, what was perhaps meant, help.
    _, _, text = re.sub("[│╭╮╰╯]", " ", box.getvalue()).partition("\n")
    sections = re.split(r"(?m)^ *[─-]{3,} *$", text)
    wrong, *rest = [section for section in sections if section.strip()]
    if "Missing from" in wrong:
        # Names are indented less than what they mean.
        names = re.findall(r"^ {6}(\S+)", wrong, re.MULTILINE)
        wrong = f"{', '.join(names)} must be given"
    wrong = " ".join(wrong.split()).rstrip(".").replace(". Expected", ", expected")
    meant = re.search(r"Perhaps you meant:\s+(--\S+)", "\n".join(rest))
    advice = f"did you mean {meant[1]}, or " if meant else ""
    first = wrong[:1] if wrong[:2].isupper() else wrong[:1].lower()
    raise UserError(f"{first}{wrong[1:]}; {advice}see `{prog} --help`") from None


# -------------------------------------------------------------------------- commands


def demo(
    *,
    out: Path = Path("demo"),
    episodes: int = 100,
    num_steps: int | None = None,
    seed: int = 0,
    devices: Devices = None,
    platform: Platform = None,
) -> None:
    """Make PointMaze data, train Diffuser, plan, act in MuJoCo, and draw it all.

    Args:
      out: folder for data, run, pictures and demo.json.
      episodes: episodes played for the score.
      num_steps: updates; fewer for a quicker look.
      seed: of everything random.
      devices: devices to use.
      platform: their kind.
    """
    from jaxdiff.tasks.presets import preset

    _, training = preset("diffuser", "demo", "")
    batch = training["denoiser"].batch_size
    chosen = _devices(devices, platform, batch=batch)
    from jaxdiff.demo import demo as run_demo

    result = run_demo(
        out, episodes=episodes, num_steps=num_steps, seed=seed, devices=chosen
    )
    _table(result)


def data_make(
    recipe: Positional[str],
    /,
    *,
    steps: int | None = None,
    seed: int = 0,
    noise: float | None = None,
    root: Path | None = None,
) -> None:
    """Make a dataset with a real simulator, such as pointmaze-umaze.

    Args:
      recipe: name of the dataset.
      steps: transitions; a million of a maze, 20000 of a claw, 90000 of a kitchen,
        50000 of PushT, 45000 of Doom.
      seed: of everything random.
      noise: standard deviation of the noise on the expert's actions; 0.5 in a maze,
        0.1 in a kitchen, 4 pixels in PushT.
      root: folder of datasets; MINARI_DATASETS_PATH or Minari's own by default.
    """
    from jaxdiff.tasks.recipes import RECIPES

    if recipe not in RECIPES:
        raise UserError(
            f"there is no recipe {recipe!r}; choose one of {', '.join(RECIPES)}"
        )
    chosen = RECIPES[recipe]
    if noise is not None and not chosen.noisy:
        raise UserError(f"the recipe {recipe} takes no --noise; leave it out")
    options = {} if noise is None else {"noise": noise}
    steps = chosen.steps if steps is None else steps
    path = chosen.make(steps=steps, seed=seed, root=root, **options)
    print(f"{recipe} is in {path}")


_MOST_COLUMNS = 200  # of a field that are listed one by one; pictures have more


def data_info(name: Positional[str], /, *, root: Path | None = None) -> None:
    """Describe a dataset: its size, ranges, returns and fingerprint.

    Args:
      name: recipe, Minari id or path.
      root: folder of datasets; MINARI_DATASETS_PATH or Minari's own by default.
    """
    from jaxdiff.data.episodes import load_dataset

    dataset = load_dataset(name, root=root)
    episodes = dataset.episodes
    lengths = episodes.lengths
    returns = np.add.reduceat(episodes.rewards.astype(np.float64), episodes.starts)
    fields = ("observations", "actions", "rewards", "goals")
    arrays = {field: getattr(episodes, field) for field in fields}
    _table(
        {
            "name": dataset.name,
            "environment": dataset.environment or "unknown",
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
    print(f"\n{'field':<16}{'smallest':>12}{'mean':>12}{'largest':>12}")
    for field, array in arrays.items():
        if array is None:
            continue
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


def list_all(*, root: Path | None = None) -> None:
    """List recipes, local datasets, algorithms and presets.

    Args:
      root: folder of datasets; MINARI_DATASETS_PATH or Minari's own by default.
    """
    from jaxdiff.algorithms import ALGORITHMS
    from jaxdiff.data.locate import datasets_root, local_datasets
    from jaxdiff.tasks.presets import PRESETS
    from jaxdiff.tasks.recipes import RECIPES

    stored = local_datasets(root)
    made = {name for name, recipe in RECIPES.items() if recipe.dataset_id in stored}
    _table(
        {
            "recipes": ", ".join(
                f"{name} (made)" if name in made else name for name in RECIPES
            ),
            f"datasets in {datasets_root(root)}": ", ".join(stored) or "none",
            "algorithms": ", ".join(ALGORITHMS),
            "presets": ", ".join(PRESETS),
        }
    )


def evaluate(
    run: Positional[Path],
    /,
    *,
    episodes: int = 100,
    setting: Setting | None = None,
    seed: int = 1_000,
    best: bool = False,
    num_envs: int = 100,
    latency: float | None = None,
    live: bool = False,
    devices: Devices = None,
    platform: Platform = None,
    choose: Literal["fixed", "earliest"] | None = None,
    candidates: int | None = None,
    replan_every: int | None = None,
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] | None = None,
    sampling_steps: int | None = None,
    warm_start: int | None = None,
    guide_scale: float | None = None,
    guide_at: Literal["x_t", "mean"] | None = None,
    guide_steps: int | None = None,
    guide_stop: int | None = None,
    rank: Literal["consistency", "return"] | None = None,
    extra_steps: int | None = None,
    bandwidth: float | None = None,
    guidance_weight: float | None = None,
    target: float | None = None,
) -> None:
    """Play episodes with a trained run and score them.

    Args:
      run: the run folder.
      episodes: how many; of Doom, minutes.
      setting: in a maze, a random goal each episode or D4RL's fixed goal; by default
        what the dataset pays for.
      seed: of the first episode.
      best: use the best checkpoint instead of the newest.
      num_envs: environments side by side.
      latency: at Doom, the seconds that a decision takes; measured by default.
      live: at Doom, let the game go on by its own clock instead.
      devices: devices to use.
      platform: their kind.
      choose: overrides how a plan is chosen.
      candidates: overrides the plans, or actions, made for each problem.
      replan_every: overrides the steps between two plans.
      sampler: overrides the sampler.
      sampling_steps: overrides its steps.
      warm_start: overrides the levels to which the last plan is noised again, 0 for
        plans from pure noise.
      guide_scale: overrides how strongly plans are guided towards reward.
      guide_at: overrides where.
      guide_steps: overrides how often in a denoising step.
      guide_stop: overrides the noise level below which they are not.
      rank: overrides what the best candidate is.
      extra_steps: overrides the denoising steps that Diffusion-X takes at the end.
      bandwidth: overrides the width of the density by which Diffusion-KDE chooses.
      guidance_weight: overrides how strongly actions, or plans, are led by their
        condition, 1 for as much as in the data.
      target: overrides the return that is asked for, 0 and 1 being the lowest and the
        highest percent of the data.
    """
    chosen = _devices(devices, platform)
    from jaxdiff.evaluation import evaluate_run
    from jaxdiff.run import load_run
    from jaxdiff.scoring import save_evaluation

    overrides = {
        "choose": choose,
        "candidates": candidates,
        "replan_every": replan_every,
        "sampler": sampler,
        "sampling_steps": sampling_steps,
        "warm_start": warm_start,
        "guide_scale": guide_scale,
        "guide_at": guide_at,
        "guide_steps": guide_steps,
        "guide_stop": guide_stop,
        "rank": rank,
        "extra_steps": extra_steps,
        "bandwidth": bandwidth,
        "guidance_weight": guidance_weight,
        "target": target,
    }
    overrides = {name: value for name, value in overrides.items() if value is not None}
    loaded = load_run(run, best=best, overrides=overrides)
    record, _ = evaluate_run(
        loaded,
        episodes=episodes,
        setting=setting,
        seed=seed,
        num_envs=num_envs,
        latency=latency,
        live=live,
        devices=chosen,
    )
    path = save_evaluation(loaded, {**record, "seed": seed, "overrides": overrides})
    _table(record)
    print(f"written to {path}")


def tune_guidance(
    run: Positional[Path],
    /,
    *,
    scales: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1),
    stops: tuple[int, ...] | None = None,
    steps: tuple[int, ...] = (1, 2),
    episodes: int = 4,
    max_steps: int = 200,
    candidates: int | None = None,
    seed: int = 0,
    best: bool = False,
    platform: Platform = None,
) -> None:
    """Try settings of guidance side by side in the run's environment.

    Args:
      run: the run folder, of Hopper or the like, with a model of returns.
      scales: values of --guide-scale to try; each is tried with each of the others.
      stops: values of --guide-stop; by default 0, half of all levels and 3/4.
      steps: values of --guide-steps.
      episodes: played with every setting, the same for all.
      max_steps: episodes are cut here, to be quick.
      candidates: overrides the plans made for each problem.
      seed: of the first episode.
      best: use the best checkpoint instead of the newest.
      platform: kind of device.
    """
    _devices(1, platform)
    from jaxdiff.run import load_run
    from jaxdiff.tune import default_stops, evaluate_command
    from jaxdiff.tune import tune_guidance as tune

    overrides = {} if candidates is None else {"candidates": candidates}
    loaded = load_run(run, best=best, overrides=overrides)
    record = tune(
        loaded,
        scales=scales,
        stops=default_stops(loaded) if stops is None else stops,
        steps=steps,
        episodes=episodes,
        max_steps=max_steps,
        seed=seed,
    )
    print(f"drawn in {loaded.path / 'figures' / 'guidance.png'}")
    if record["best"] is None:
        raise UserError(
            "the actions of every setting were not finite; try smaller numbers with "
            "--scales, or train for longer"
        )
    _table(record["best"])
    print(f"score it with: {evaluate_command(loaded, record['best'], best=best)}")


def plan(
    run: Positional[Path],
    /,
    *,
    start: str,
    goal: str,
    avoid: str | None = None,
    via: str | None = None,
    xy: bool = False,
    horizon: int | None = None,
    candidates: int = 8,
    seed: int = 0,
    best: bool = False,
    platform: Platform = None,
    figure: Path | None = None,
    out: Path | None = None,
) -> None:
    """Plan from a start to a goal in a maze.

    Args:
      run: the run folder.
      start: maze cell "row,col"; with --xy metres "x,y".
      goal: likewise.
      avoid: keep out of a disc, "row,col,radius" or with --xy "x,y,radius"; the radius
        is in metres.
      via: pass this point on the way, written as the start is.
      xy: read points as metres.
      horizon: steps of the plan, one that the run declares.
      candidates: plans made; the most consistent is shown.
      seed: of the plans' noise.
      best: use the best checkpoint instead of the newest.
      platform: kind of device.
      figure: draw the plans here (PNG).
      out: write the plans here (NPZ).
    """
    _devices(None, platform)
    from jaxdiff.plans import maze_task, save_plans
    from jaxdiff.plans import plan as make_plan
    from jaxdiff.run import load_run, require_maze
    from jaxdiff.tasks.pointmaze.world import require_free

    loaded = load_run(run, best=best)
    maze = require_maze(loaded)
    ends = [
        _point(maze, name, text, xy)
        for name, text in (("start", start), ("goal", goal))
    ]
    region = None if avoid is None else _region(maze, avoid, xy)
    waypoint = None if via is None else _point(maze, "via", via, xy)
    if waypoint is not None:
        require_free(maze, waypoint, "point to pass")
    plans = make_plan(
        loaded,
        *ends,
        horizon=horizon,
        candidates=candidates,
        seed=seed,
        **maze_task(region, waypoint),
    )
    if out is not None:
        save_plans(plans, out)
    if figure is not None:
        from jaxdiff import figures

        shown = plans.observations[:4, :, :2]
        titles = [f"dynamics_error {value:.2f}" for value in plans.dynamics_error[:4]]
        drawn = figures.plot_plans(
            maze,
            shown,
            starts=[ends[0]] * len(shown),
            goals=[ends[1]] * len(shown),
            avoid=None if region is None else [region] * len(shown),
            via=None if waypoint is None else [waypoint] * len(shown),
            titles=titles,
        )
        figures.save(drawn, figure)
    best_plan = plans.observations[0]
    steps = np.diff(best_plan[:, :2], axis=0)
    length = float(np.linalg.norm(steps, axis=-1).sum())
    _table(
        {
            "horizon": len(best_plan),
            "candidates": candidates,
            "dynamics_error": float(plans.dynamics_error[0]),
            "path_length": length,
        }
    )


@dataclasses.dataclass(frozen=True)
class TrainOptions(Generic[C, T]):
    """What every training command takes, beside options of the algorithm.

    Attributes:
      dataset: recipe, Minari id or path.
      run: folder for checkpoints, metrics and pictures.
      resume: go on with the run in the folder.
      seed: of everything random.
      preset: which defaults: demo, released or paper.
      config: take the options of algorithm and training from another run's
        config.json.
      eval_episodes: episodes of an evaluation during training, see --eval-every.
      devices: devices to use.
      platform: their kind.
      algorithm: options of the algorithm.
      training: options of training of the first learner.
      learners: those of the other learners, by name.
    """

    dataset: str
    run: Path
    algorithm: OmitArgPrefixes[C]
    training: OmitArgPrefixes[T]
    learners: Annotated[dict[str, T], tyro.conf.arg(name="")]
    resume: bool = False
    seed: int = 0
    preset: str = "demo"
    config: Path | None = None
    eval_episodes: int = 20
    devices: Devices = None
    platform: Platform = None


def _train(algorithm: str) -> Command:
    """A training command; its defaults depend on --preset, --dataset and --config."""

    def run(prog: str, args: list[str]) -> None:
        from jaxdiff.tasks.presets import preset

        chosen = _value_of(args, "--preset") or "demo"
        source = _value_of(args, "--config")
        if source is not None and _value_of(args, "--preset") is not None:
            raise UserError(
                "--preset and --config both choose all options; give one of them"
            )
        config, training = preset(algorithm, chosen, _value_of(args, "--dataset") or "")
        if source is not None:
            config, training = _read_config(Path(source), algorithm, config, training)

        first, *others = training
        kind: Any = TrainOptions
        options = _parse(
            kind[type(config), type(training[first])],
            prog,
            args,
            description=f"Train {algorithm} on a dataset into a run folder.",
            default=TrainOptions(
                dataset=tyro.MISSING,
                run=tyro.MISSING,
                algorithm=config,
                training=training[first],
                learners={name: training[name] for name in others},
                preset=chosen,
            ),
        )
        training = {first: options.training, **options.learners}
        _run_training(algorithm, options, training)

    return Command(f"Train {algorithm} on a dataset into a run folder.", run)


def _run_training(
    algorithm: str, options: TrainOptions, training: dict[str, Any]
) -> None:
    _require_seed(options.seed)
    slices = getattr(options.algorithm, "accumulate", 1)
    if options.eval_episodes < 1:
        raise UserError(
            f"--eval-episodes is {options.eval_episodes}; it must be at least 1"
        )
    batch = math.gcd(*(each.batch_size // slices for each in training.values()))
    devices = _devices(options.devices, options.platform, batch=batch)
    from jaxdiff.data.episodes import load_dataset
    from jaxdiff.evaluation import evaluate_run
    from jaxdiff.run import train_run

    def score(run: Any) -> tuple[str, float]:
        record, _ = evaluate_run(run, episodes=options.eval_episodes, devices=devices)
        name = "score" if "score" in record else "mean_return"
        return name, record[name]

    dataset = load_dataset(options.dataset, download=True)
    # Without an environment to be scored in, the held-out loss has to do.
    can_play = dataset.environment is not None
    run = train_run(
        algorithm,
        dataset,
        options.run,
        config=options.algorithm,
        training=training,
        seed=options.seed,
        devices=devices,
        resume=options.resume,
        evaluate=score if can_play else None,
    )
    print(f"trained into {run.path}")
    if can_play:
        print(f"score it with: jaxdiff evaluate {run.path}")


COMMANDS: dict[str, Command] = {
    "demo": _function(demo),
    "list": _function(list_all),
    "data make": _function(data_make),
    "data info": _function(data_info),
    "train diffuser": _train("diffuser"),
    "train decision-diffuser": _train("decision-diffuser"),
    "train diffusion-bc": _train("diffusion-bc"),
    "train bc": _train("bc"),
    "train iql": _train("iql"),
    "train srpo": _train("srpo"),
    "train td3-bc": _train("td3-bc"),
    "train idql": _train("idql"),
    "train diffusion-ql": _train("diffusion-ql"),
    "train fql": _train("fql"),
    "train qgpo": _train("qgpo"),
    "train cql": _train("cql"),
    "train bcq": _train("bcq"),
    "train bear": _train("bear"),
    "evaluate": _function(evaluate),
    "tune-guidance": _function(tune_guidance),
    "plan": _function(plan),
}


# --------------------------------------------------------------------------- helpers


def _devices(
    count: int | None, platform: str | None = None, *, batch: int | None = None
) -> list[Any]:
    """Choose devices before JAX touches any: on CPU, one virtual device a core.

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
    """Cores this process may use, at most 8: more virtual devices gain nothing."""
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


def _require_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise UserError(f"--seed is {seed}; it must be between 0 and {2**31 - 1}")


def _point(maze: Any, name: str, text: str, xy: bool) -> Any:
    """Read "row,col", or "x,y" in metres, as a position."""
    from jaxdiff.tasks.pointmaze.world import cell_to_xy

    kind = float if xy else int
    try:
        first, second = (kind(part) for part in text.split(","))
    except ValueError:
        form = "x,y in metres" if xy else "row,col of a cell"
        raise UserError(
            f"--{name} is {text!r}; write it as {form}, such as 1,1"
        ) from None
    point = (first, second)
    return point if xy else cell_to_xy(maze, point)


def _region(maze: Any, text: str, xy: bool) -> tuple[float, float, float]:
    """Read a point and a radius, "row,col,radius" or "x,y,radius"."""
    point, _, radius = text.rpartition(",")
    try:
        size = float(radius)
        if not 0 < size < math.inf:
            raise ValueError
        x, y = _point(maze, "avoid", point, xy)
    except (ValueError, UserError):
        form = "x,y,radius" if xy else "row,col,radius"
        raise UserError(
            f"--avoid is {text!r}; write it as {form}, the radius in metres, such as "
            "1,1,0.4"
        ) from None
    return float(x), float(y), size


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
    from jaxdiff.run import read_training

    try:
        document = json.loads(path.read_text())
        if document["algorithm"] != algorithm:
            raise ValueError(f"it configures {document['algorithm']}")
        config = from_plain(type(config), document["config"])
        found = read_training(document["training"])
        if not isinstance(found, dict):
            found = dict.fromkeys(training, found)
        # Of learners that the other run did not have, the preset's.
        return config, {name: found.get(name, training[name]) for name in training}
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({reason(error)}); give --config the config.json "
            "of a run"
        ) from error
    except (ValueError, LookupError, TypeError, RecursionError, UserError) as error:
        raise UserError(
            f"{path} is no configuration for {algorithm} ({reason(error)}); give "
            "--config the config.json of a run of it"
        ) from error


def _table(record: dict[str, Any]) -> None:
    width = max(map(len, record))
    for name, value in record.items():
        if isinstance(value, tuple | list):
            value = " to ".join(f"{v:.4g}" for v in value)
        elif isinstance(value, float):
            value = f"{value:.4g}"
        print(f"{name:<{width}}  {value}")
