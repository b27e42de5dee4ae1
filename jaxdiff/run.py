"""Runs: from a dataset to a folder, and from a folder back to something that acts."""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff import checkpoint
from jaxdiff.algorithms import ALGORITHMS, Algorithm, Entry, TrainState
from jaxdiff.data.episodes import Dataset, join_episodes, load_dataset, split_episodes
from jaxdiff.devices import Device
from jaxdiff.errors import UserError, reason
from jaxdiff.options import from_plain, to_plain
from jaxdiff.tasks.pointmaze.world import Maze, maze_of_environment
from jaxdiff.train import TrainConfig, train_learners


class Run(NamedTuple):
    """Something trained, ready to act.

    Attributes:
      path: its folder.
      name: of the algorithm.
      config: options of the algorithm.
      statistics: what was measured on the dataset.
      algorithm: built from the three above.
      states: of its learners.
      document: the whole of `config.json`.
    """

    path: Path
    name: str
    config: Any
    statistics: Any
    algorithm: Algorithm
    states: Mapping[str, TrainState]
    document: Mapping[str, Any]


def train_run(
    algorithm: str,
    dataset: str | Dataset,
    path: str | Path,
    *,
    config: Any,
    training: TrainConfig | Mapping[str, TrainConfig],
    seed: int = 0,
    devices: Sequence[Device] | None = None,
    resume: bool = False,
    evaluate: Callable[[Run], tuple[str, float]] | None = None,
) -> Run:
    """Train an algorithm on a dataset into a run folder.

    A folder that nothing was trained into yet is free: what a failed first try left
    there is replaced.

    Args:
      algorithm: a name of `ALGORITHMS`.
      dataset: a `Dataset`, or a recipe, Minari id or path to load.
      path: the run folder; made if it is not there.
      config: options of the algorithm.
      training: options of training, of all learners alike or by the learner's name;
        those of a learner that the algorithm does not have are left out.
      seed: of everything random.
      devices: to train on, by default one.
      resume: go on with the run in the folder; a missing folder starts fresh.
      evaluate: scores the run now and then, see `TrainConfig.eval_every`; the best
        checkpoint is kept.

    Raises:
      UserError: the folder holds other files than a run's, or a run while `resume` is
        off, or a run of other options, of another dataset or of more updates.
    """
    path = Path(path)
    if isinstance(dataset, str):
        dataset = load_dataset(dataset)
    entry = _entry(algorithm)
    asked = {
        "algorithm": algorithm,
        "config": to_plain(config),
        "seed": seed,
        "dataset": {
            "name": dataset.name,
            "environment": dataset.environment,
            "fingerprint": dataset.fingerprint,
            "references": dict(dataset.references),
            "action_dim": dataset.episodes.actions.shape[1],
        },
    }
    train, held_out = split_episodes(join_episodes(dataset.episodes))
    with checkpoint.locked(path):
        fresh = checkpoint.is_fresh(path)
        if fresh:
            arrays = _pack(entry.measure(config, train))
        elif not resume:
            raise UserError(
                f"{path} already holds a run; go on with it by --resume, or name "
                "another folder with --run"
            )
        else:
            document, arrays = checkpoint.read_run(path)
            _check_same(path, entry, document, asked)
        statistics = _unpack(entry.statistics, arrays)
        built = entry.build(
            config, statistics, action_dim=asked["dataset"]["action_dim"]
        )
        configs = _by_learner(training, built)
        asked["training"] = {name: to_plain(each) for name, each in configs.items()}
        # Nothing is written before the options are known to build something.
        if fresh:
            document = checkpoint.create_run(path, asked, arrays)
        else:
            _check_training(path, document["training"], configs)
            document = checkpoint.update_run(path, training=asked["training"])
        run = Run(path, algorithm, config, statistics, built, {}, document)
        states = train_learners(
            built,
            train,
            configs=configs,
            seed=seed,
            devices=devices,
            held_out=held_out,
            run=path,
            evaluate=evaluate
            and (lambda states: evaluate(run._replace(states=states))),
        )
    return run._replace(states=states)


def load_run(
    path: str | Path, *, best: bool = False, overrides: Mapping[str, Any] | None = None
) -> Run:
    """Load a trained run; its folder is all that is needed.

    Args:
      path: the run folder.
      best: take the checkpoint of the best evaluation instead of the newest.
      overrides: options of acting to change, such as `{"candidates": 8}`.

    Raises:
      UserError: the folder is missing, foreign, damaged or of another version.
    """
    path = Path(path)
    document, arrays = checkpoint.read_run(path)
    entry = _entry(document["algorithm"])
    try:
        config = from_plain(entry.config, document["config"])
        statistics = _unpack(entry.statistics, arrays)
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(
            f"{path / 'config.json'} does not fit this version of jaxdiff "
            f"({reason(error)}); use version {document['versions'].get('jaxdiff')} or "
            "train again"
        ) from error
    config = _overridden(document["algorithm"], config, overrides or {})
    built = entry.build(
        config, statistics, action_dim=document["dataset"]["action_dim"]
    )
    states: dict[str, TrainState] = {}
    for name in built.learners:
        found = checkpoint.restore_state(path, name, best=best)
        if found is None:
            raise UserError(
                f"{path} holds no checkpoint of {name} yet; train it with "
                f"`jaxdiff train {document['algorithm']} --dataset "
                f"{document['dataset']['name']} --run {path} --resume`"
            )
        states[name] = found[1]
    return Run(path, document["algorithm"], config, statistics, built, states, document)


def _overridden(algorithm: str, config: Any, overrides: Mapping[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(config)}
    unknown = sorted(overrides.keys() - known)
    if unknown:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unknown)
        raise UserError(f"{algorithm} has no option {flags}; leave it out")
    return dataclasses.replace(config, **overrides)


def maze_of(run: Run) -> Maze | None:
    """Return the maze of a run's dataset, or None for another environment."""
    return maze_of_environment(run.document["dataset"]["environment"])


def require_maze(run: Run) -> Maze:
    """Return the maze of a run's dataset.

    Raises:
      UserError: the dataset is of another environment.
    """
    maze = maze_of(run)
    if maze is None:
        raise UserError(
            f"{run.path} was trained on {run.document['dataset']['name']}, which is no "
            "maze; give this command a run of a maze"
        )
    return maze


def _entry(algorithm: str) -> Entry:
    if algorithm not in ALGORITHMS:
        raise UserError(
            f"there is no algorithm {algorithm!r}; choose one of "
            f"{', '.join(ALGORITHMS)}"
        )
    return ALGORITHMS[algorithm]


def read_training(document: Mapping[str, Any]) -> TrainConfig | dict[str, TrainConfig]:
    """Rebuild the "training" of a run's configuration: options by learner.

    Of early runs, which had one learner, it holds the options themselves.

    Raises:
      TypeError, UserError: what it holds are no such options.
    """
    if all(isinstance(each, Mapping) for each in document.values()):
        return {name: from_plain(TrainConfig, each) for name, each in document.items()}
    return from_plain(TrainConfig, document)


def _by_learner(
    training: TrainConfig | Mapping[str, TrainConfig], built: Algorithm
) -> dict[str, TrainConfig]:
    """Give every learner its options of training."""
    if isinstance(training, TrainConfig):
        return dict.fromkeys(built.learners, training)
    missing = [name for name in built.learners if name not in training]
    if missing:
        raise UserError(
            f"there are no options of training for {', '.join(missing)}, only for "
            f"{', '.join(training)}; give one TrainConfig for each learner, or one "
            "for all"
        )
    return {name: training[name] for name in built.learners}


def _check_same(
    path: Path, entry: Entry, document: Mapping[str, Any], asked: dict[str, Any]
) -> None:
    """Refuse to resume a run with other options, by their names."""
    # What an option that the run does not know would have been is its default.
    known = {**to_plain(entry.config()), **document["config"]}
    before, now = (
        {"algorithm": part["algorithm"], "seed": part["seed"], **config}
        for part, config in ((document, known), (asked, asked["config"]))
    )
    _refuse_changes(path, before, now)
    if document["dataset"]["fingerprint"] != asked["dataset"]["fingerprint"]:
        raise UserError(
            f"{path} was trained on other data than {asked['dataset']['name']} holds "
            "now (their fingerprints differ); restore that dataset, or name another "
            "folder with --run"
        )


def _check_training(
    path: Path, before: Mapping[str, Any], configs: Mapping[str, TrainConfig]
) -> None:
    """Refuse to resume a run with another kind of training, or with less of it."""
    for i, (name, config) in enumerate(configs.items()):
        prefix = f"{name}." if i else ""
        found, now = before.get(name, before), to_plain(config)
        for option in _MAY_CHANGE:
            now.pop(option)
        _refuse_changes(
            path,
            {prefix + key: found.get(key) for key in now},
            {prefix + key: value for key, value in now.items()},
        )
        done = max(checkpoint.saved_steps(path, name), default=0)
        if done > config.num_steps:
            raise UserError(
                f"{path} holds {name} after {done} updates, and --{prefix}num-steps is "
                f"{config.num_steps}; ask for at least {done}, or name another folder "
                "with --run"
            )


# How long to train and how often to look may change between two halves of a run.
_MAY_CHANGE = ("num_steps", "log_every", "save_every", "eval_every", "keep")


def _refuse_changes(
    path: Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    changed = [
        f"{name} (was {before.get(name)}, now {now.get(name)})"
        for name in dict.fromkeys([*now, *before])
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise UserError(
            f"{path} was trained with other options ({', '.join(changed)}); resume "
            "with the old ones, or name another folder with --run"
        )


def _pack(tree: Any) -> dict[str, np.ndarray]:
    """Flatten nested records into arrays by path, such as "normalizer/knots"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def _unpack(kind: type, arrays: Mapping[str, np.ndarray], prefix: str = "") -> Any:
    """Rebuild a record of class `kind` from what `_pack` made of one.

    Raises:
      UserError: a field is missing, for another version of jaxdiff wrote the arrays.
    """
    if not dataclasses.is_dataclass(kind):
        raise UserError(
            f"the statistics of this run have no {prefix.rstrip('/')}: another version "
            "of jaxdiff wrote them; train the run again, into another folder"
        )
    fields = {
        name: arrays[prefix + name]
        if prefix + name in arrays
        else _unpack(hint, arrays, f"{prefix}{name}/")
        for name, hint in typing.get_type_hints(kind).items()
    }
    return kind(**fields)
