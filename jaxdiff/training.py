"""From the name of a dataset to a trained run: data, task, preset, training, scores."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdiff import run as runs
from jaxdiff.algorithms.base import Preset, TrainConfig
from jaxdiff.data.episodes import Dataset, goes_on
from jaxdiff.data.spec import Environment
from jaxdiff.devices import Device
from jaxdiff.errors import UserError, require_at_least
from jaxdiff.evaluation import evaluate
from jaxdiff.options import override
from jaxdiff.progress import note
from jaxdiff.run import Run
from jaxdiff.tasks.lookup import find_preset, load_dataset, spec_of


def train_run(
    algorithm: str,
    dataset: str | Path | Dataset,
    path: str | Path,
    *,
    preset: str | Preset | None = None,
    config: Any = None,
    acting: Any = None,
    training: TrainConfig | Mapping[str, Any] | None = None,
    environment: str | None = None,
    seed: int = 0,
    devices: Sequence[Device] | None = None,
    resume: bool = False,
    eval_episodes: int = 20,
) -> Run:
    """Train an algorithm on a dataset into a run folder.

        train_run("diffuser", "my.npz", "runs/mine", environment="my_module:My-v0")

    Args:
      algorithm: a name of `ALGORITHMS`.
      dataset: a recipe, a Minari id, a path or a loaded `Dataset`.
      path: the run folder; made if it is not there.
      preset: the options to start from, or their name, see `find_preset`.
      config: options of the algorithm that differ from the preset, or all of them as an
        instance of its config class.
      acting: options of acting, in the same two forms.
      training: a `TrainConfig` for all learners; or a mapping that holds fields of it,
        such as `{"num_steps": 2000}`, for all learners, and mappings or `TrainConfig`
        by the name of a learner, for that one.
      environment: Gymnasium id that policies are scored in, `Id` or `module:Id`; by
        default what the dataset says.
      seed: of everything random.
      devices: to train on, by default one.
      resume: go on with the run in the folder; a missing folder starts fresh.
      eval_episodes: episodes of an evaluation during training, see
        `TrainConfig.eval_every`.

    Raises:
      UserError: the dataset or the preset does not exist, options do not fit, or the
        folder is not free.
    """
    require_at_least(1, eval_episodes=eval_episodes)
    if not isinstance(dataset, Dataset):
        dataset = load_dataset(dataset, download=True, environment=environment)
    elif environment is not None:
        dataset = dataset._replace(evaluation=Environment(environment))
    spec = spec_of(dataset)
    start = preset
    if not isinstance(start, Preset):
        start = find_preset(algorithm, dataset, spec, start)
    options = Preset(
        _chosen(start.config, config, algorithm),
        _chosen(start.acting, acting, f"acting with {algorithm}"),
        trained(start.training, training),
        start.name,
    )

    def score(run: Run) -> tuple[str, float]:
        record, _ = evaluate(
            run, episodes=eval_episodes, devices=devices, environment=environment
        )
        name = "score" if "score" in record else "mean_return"
        return name, record[name]

    # Without an environment to be scored in, the held-out loss has to do.
    playable = dataset.evaluation is not None
    return runs.train(
        algorithm,
        dataset,
        spec,
        path,
        options,
        seed=seed,
        devices=devices,
        resume=resume,
        evaluate=score if playable else None,
        announce=functools.partial(say_plan, algorithm, dataset, start.name),
    )


def trained(
    start: Mapping[str, TrainConfig],
    asked: TrainConfig | Mapping[str, Any] | None,
) -> dict[str, TrainConfig]:
    """Combine the training of a preset with what was asked for; see `train_run`.

    Raises:
      UserError: a name that is neither an option of training nor a learner.
    """
    if isinstance(asked, TrainConfig):
        return dict.fromkeys(start, asked)
    asked = dict(asked or {})
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    unknown = sorted(asked.keys() - fields - start.keys())
    if unknown:
        raise UserError(
            f"`training` names {', '.join(unknown)}; choose among the options "
            f"{', '.join(sorted(fields))} and the learners {', '.join(start)}"
        )
    shared = {name: value for name, value in asked.items() if name in fields}
    found = {}
    for learner, config in start.items():
        own = asked.get(learner, {})
        found[learner] = (
            own
            if isinstance(own, TrainConfig)
            else override(config, {**shared, **own}, f"the learner {learner}")
        )
    return found


def say_plan(
    algorithm: str, dataset: Dataset, preset: str, training: Mapping[str, TrainConfig]
) -> None:
    """Say what will be trained, before it begins."""
    counts = ", ".join(
        f"{name} {config.num_steps:,} updates of {config.batch_size}"
        for name, config in training.items()
    )
    stored = joined = len(dataset.episodes.lengths)
    if dataset.stream:
        joined -= int(goes_on(dataset.episodes).sum())
    note(
        f"{algorithm} on {dataset.name} ({stored:,} episodes"
        f"{f' joined into {joined:,}' if joined < stored else ''}, "
        f"{int(dataset.episodes.lengths.sum()):,} steps), preset {preset}: {counts}"
    )


def _chosen(start: Any, asked: Any, owner: str) -> Any:
    if asked is None or isinstance(asked, Mapping):
        return override(start, asked or {}, owner)
    if not isinstance(asked, type(start)):
        raise UserError(
            f"the options of {owner} are a {type(start).__name__}, not a "
            f"{type(asked).__name__}; give one of those, or a mapping of what differs"
        )
    return asked
