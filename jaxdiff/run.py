"""Runs: from a dataset to a folder, and from a folder back to something that acts.

This module knows no task. It is handed a loaded dataset and its `Spec`; the functions
that find both by name are `jaxdiff.training.train_run` and `jaxdiff.evaluation`.
"""

import contextlib
import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff import checkpoint, run_folder
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import Algorithm, Entry, Preset, TrainConfig, TrainState
from jaxdiff.compilation import keep_programs
from jaxdiff.data.episodes import Dataset, split_episodes
from jaxdiff.data.spec import (
    Environment,
    Spec,
    spec_from_plain,
    spec_to_plain,
)
from jaxdiff.devices import Device
from jaxdiff.errors import UserError, reason
from jaxdiff.options import from_plain, override, to_plain
from jaxdiff.policy import Policy
from jaxdiff.progress import note
from jaxdiff.train import train_learners


class Run(NamedTuple):
    """Something trained, ready to act.

    Attributes:
      path: its folder.
      name: of the algorithm.
      config: options that training read.
      acting: options that may change after training.
      statistics: what was measured on the dataset.
      spec: what the algorithm was built for.
      algorithm: built from the four above.
      states: of its learners.
      document: the whole of `config.json`.
      training: how each of its learners is trained.
      best: whether its states are those of the best evaluation.
    """

    path: Path
    name: str
    config: Any
    acting: Any
    statistics: Any
    spec: Spec
    algorithm: Algorithm
    states: Mapping[str, TrainState]
    document: Mapping[str, Any]
    training: Mapping[str, TrainConfig] = MappingProxyType({})
    best: bool = False

    def policy(
        self,
        num_envs: int = 1,
        *,
        seeds: Sequence[int] | None = None,
        devices: Sequence[Device] | None = None,
        guidance: Any = None,
    ) -> Policy:
        """Return what acts in `num_envs` environments side by side.

        Args:
          num_envs: B.
          seeds: `[B]` seeds of its noise; by default the index of each environment.
          devices: the batch is split over as many of them as divide it.
          guidance: arrays that take the place of acting options.
        """
        return Policy(
            self.algorithm,
            self.states,
            self.spec,
            num_envs=num_envs,
            seeds=seeds,
            devices=devices,
            guidance=guidance,
        )

    @property
    def dataset(self) -> Mapping[str, Any]:
        """What the run remembers of its dataset: name, environment, references, ..."""
        return self.document["dataset"]

    def environment(self) -> Environment | None:
        """Return the environment that policies are scored in, if it is known."""
        stored = self.dataset["evaluation"] or self.dataset["environment"]
        return None if stored is None else Environment(**stored)


def train(
    algorithm: str,
    dataset: Dataset,
    spec: Spec,
    path: str | Path,
    options: Preset,
    *,
    seed: int = 0,
    devices: Sequence[Device] | None = None,
    resume: bool = False,
    evaluate: Callable[[Run], tuple[str, float]] | None = None,
    announce: Callable[[Mapping[str, TrainConfig]], None] | None = None,
) -> Run:
    """Train an algorithm on a dataset into a run folder.

    A folder that nothing was trained into yet is free: what a failed first try left
    there is replaced.

    Args:
      algorithm: a name of `ALGORITHMS`.
      dataset: the data.
      spec: what the algorithm is built for.
      path: the run folder; made if it is not there.
      options: of training, acting and each learner. Learners that the algorithm does
        not have are left out.
      seed: of everything random.
      devices: to train on, by default one.
      resume: go on with the run in the folder; a missing folder starts fresh.
      evaluate: scores the run now and then, see `TrainConfig.eval_every`; the best
        checkpoint is kept.
      announce: called with the options of each learner right before training begins,
        if any of it is left to do.

    Raises:
      UserError: the folder holds other files than a run's, or a run while `resume` is
        off, or a run of other options, of another dataset or of more updates.
    """
    keep_programs()
    path = Path(path)
    entry = ALGORITHMS.find(algorithm)
    asked = {
        "algorithm": algorithm,
        "config": to_plain(options.config),
        "acting": to_plain(options.acting),
        "seed": seed,
        "spec": spec_to_plain(spec),
        "dataset": {
            "name": dataset.name,
            "environment": _environment(dataset.environment),
            "evaluation": _environment(dataset.evaluation),
            "fingerprint": dataset.fingerprint,
            "references": dict(dataset.references),
            "metadata": dict(dataset.metadata),
            "stream": dataset.stream,
        },
    }
    data, held_out = split_episodes(dataset.trained_on())
    with run_folder.locked(path):
        fresh = run_folder.is_fresh(path)
        if fresh:
            arrays = _pack(entry.measure(options.config, data, spec))
        elif not resume:
            raise run_folder.taken(path)
        else:
            document, arrays = run_folder.read_run(path)
            _check_same(path, entry, document, asked)
        statistics = _unpack(entry.statistics, arrays)
        built = entry.build(options.config, options.acting, statistics, spec)
        training = by_learner(options.training, built)
        asked["training"] = {name: to_plain(each) for name, each in training.items()}
        # Nothing is written before the options are known to build something.
        if fresh:
            document = run_folder.create_run(path, asked, arrays)
        else:
            with _fitting(path, document, UserError):
                before = _training_of(document, built)
            _check_training(path, before, training)
            document = run_folder.update_run(
                path, training=asked["training"], acting=asked["acting"]
            )
        run = Run(
            path, algorithm, options.config, options.acting, statistics, spec, built,
            {}, document, training,
        )  # fmt: skip
        if announce is not None and _unfinished(path, training):
            announce(training)
        states = train_learners(
            built,
            data,
            configs=training,
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
      overrides: acting options to change, such as `{"candidates": 8}`.

    Raises:
      UserError: the folder is missing, foreign, damaged or of another version, its
        algorithm is not known, an override is no acting option, or no checkpoint is
        the best.
    """
    run = open_run(path, overrides=overrides)
    if best and not any(
        checkpoint.has_best(run.path, name) for name in run.algorithm.learners
    ):
        raise UserError(
            f"{path} was never evaluated while it was trained, so that no checkpoint "
            "is the best; leave out `best`, or train with `eval_every`"
        )
    states: dict[str, TrainState] = {}
    behind = []
    for name in run.algorithm.learners:
        found = checkpoint.restore_state(run.path, name, best=best)
        if found is None:
            raise UserError(
                f"{path} holds no checkpoint of {name} yet; train it with "
                f"`jaxdiff train {run.name} --dataset {run.dataset['name']} --run "
                f"{path} --resume`"
            )
        states[name] = found[1]
        wanted = run.training[name].num_steps
        newest = max(checkpoint.saved_steps(run.path, name))
        if newest < wanted:
            behind.append(f"{newest:,} of {wanted:,} updates of {name}")
    if behind:
        note(
            f"{path} is not trained to its end ({', '.join(behind)}); resume=True goes "
            "on with it"
        )
    return run._replace(states=states, best=best)


def open_run(path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Run:
    """Read the options of a run and build its algorithm, without any parameters.

    Args:
      path: the run folder.
      overrides: as in `load_run`.

    Raises:
      UserError: as in `load_run`.
    """
    keep_programs()
    path = Path(path)
    document, arrays = run_folder.read_run(path)
    entry = ALGORITHMS.find(document["algorithm"])
    with _fitting(path, document, UserError):
        config = from_plain(entry.config, document["config"])
        acting = from_plain(entry.acting, document["acting"])
        spec = spec_from_plain(document["spec"])
        statistics = _unpack(entry.statistics, arrays)
    acting = override(acting, overrides or {}, f"acting with {entry.name}")
    with _fitting(path, document):
        built = entry.build(config, acting, statistics, spec)
    with _fitting(path, document, UserError):
        training = _training_of(document, built)
    return Run(
        path, entry.name, config, acting, statistics, spec, built, {}, document,
        training,
    )  # fmt: skip


_UNFIT = (LookupError, TypeError, ValueError, AttributeError)


@contextlib.contextmanager
def _fitting(
    path: Path, document: Mapping[str, Any], *sentences: type[UserError]
) -> Iterator[None]:
    """Explain in a sentence what of a configuration cannot be read.

    A UserError is passed on as it is, unless it is named.
    """
    try:
        yield
    except (*_UNFIT, *sentences) as error:
        raise UserError(
            f"{path / 'config.json'} does not fit this version of jaxdiff "
            f"({reason(error)}); use version {document['versions'].get('jaxdiff')} or "
            "train again"
        ) from error


def _training_of(
    document: Mapping[str, Any], built: Algorithm
) -> dict[str, TrainConfig]:
    """Read how the learners of a run are trained."""
    stored = document["training"]
    missing = [name for name in built.learners if name not in stored]
    if missing:
        raise UserError(f"it does not say how to train {', '.join(missing)}")
    return {name: from_plain(TrainConfig, stored[name]) for name in built.learners}


def load_policy(
    path: str | Path,
    *,
    num_envs: int = 1,
    best: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Policy:
    """Load a run and return what acts, for `num_envs` environments; see `load_run`."""
    return load_run(path, best=best, overrides=overrides).policy(num_envs)


def by_learner(
    training: TrainConfig | Mapping[str, TrainConfig], built: Algorithm
) -> dict[str, TrainConfig]:
    """Give every learner its options of training.

    Args:
      training: of all learners alike, or by the learner's name.
      built: the algorithm.

    Raises:
      UserError: a learner is missing.
    """
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


def _environment(environment: Environment | None) -> dict[str, Any] | None:
    """Give an environment as JSON values."""
    return None if environment is None else environment._asdict()


def _check_same(
    path: Path, entry: Entry, document: Mapping[str, Any], asked: dict[str, Any]
) -> None:
    """Refuse to resume a run on other data, or with other options, by their names."""
    # The data come first, because the defaults of options may depend on them.
    if document["dataset"]["fingerprint"] != asked["dataset"]["fingerprint"]:
        raise UserError(
            f"{path} was trained on other data than {asked['dataset']['name']} holds "
            "now (their fingerprints differ); restore that dataset, or name another "
            "folder with `run`"
        )
    # What an option that the run does not know would have been is its default.
    known = {**to_plain(entry.config()), **document["config"]}
    before, now = (
        {
            "algorithm": part["algorithm"],
            "seed": part["seed"],
            "join_episodes": part["dataset"]["stream"],
            **config,
        }
        for part, config in ((document, known), (asked, asked["config"]))
    )
    _refuse_changes(path, before, now)


def _unfinished(path: Path, training: Mapping[str, TrainConfig]) -> bool:
    """Whether a learner has updates to make."""
    return any(
        max(checkpoint.saved_steps(path, name), default=0) < config.num_steps
        for name, config in training.items()
    )


def _check_training(
    path: Path,
    before: Mapping[str, TrainConfig],
    configs: Mapping[str, TrainConfig],
) -> None:
    """Refuse to resume a run with another kind of training, or with less of it."""
    for name, config in configs.items():
        prefix = f"{name}." if len(configs) > 1 else ""
        _refuse_changes(
            path,
            *(
                {
                    prefix + key: value
                    for key, value in vars(options).items()
                    if key not in _MAY_CHANGE
                }
                for options in (before[name], config)
            ),
        )
        done = max(checkpoint.saved_steps(path, name), default=0)
        if done > config.num_steps:
            raise UserError(
                f"{path} holds {name} after {done} updates, and `{prefix}num_steps` is "
                f"{config.num_steps}; ask for at least {done}, or name another folder "
                "with `run`"
            )


# How long to train and how often to look may change between two halves of a run.
_MAY_CHANGE = ("num_steps", "log_every", "save_every", "eval_every", "keep")


def _refuse_changes(
    path: Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    changed = [
        f"`{name}` was {before.get(name)} and is now {now.get(name)}"
        for name in dict.fromkeys([*now, *before])
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise UserError(
            f"{path} was trained with other options ({', '.join(changed)}); resume "
            "with the old ones, or name another folder with `run`"
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
      UserError: a field is missing, because another version wrote the arrays.
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
