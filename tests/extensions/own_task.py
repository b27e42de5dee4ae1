"""A new task in one file: its environment, its recipe, its score and a preset."""

import dataclasses

import numpy as np
import own_environment

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.base import TrainConfig
from jaxdiff.data.spec import Layout
from jaxdiff.data.storage import datasets_root, replacing, write_minari
from jaxdiff.options import Options
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks.base import Recipe
from jaxdiff.tasks.control import CONTROL
from jaxdiff.tasks.lookup import TASKS

ENDS = np.arange(100) == 99


@dataclasses.dataclass(frozen=True)
class Near(Options):
    """Attributes: within: Distance to the origin that counts as arrival."""

    within: float = 0.3


def make(*, steps, seed=0, root=None):
    folder = datasets_root(root) / "own/reach-v0"
    env = own_environment.gymnasium.make("Reach-v0")
    with replacing(folder) as partial:
        write_minari(
            partial,
            [
                {"observations": rows, "actions": actions, "rewards": rewards,
                 "terminations": np.zeros(100, bool), "truncations": ENDS}
                for rows, actions, rewards in own_environment.record(
                    -(-steps // 100), seed=seed)
            ],
            observation_space=env.observation_space, action_space=env.action_space,
            env_spec=env.spec, metadata={"dataset_id": "own/reach-v0"},
        )  # fmt: skip
    return folder


def score(played, options, references):
    near = np.linalg.norm(played.observations[:, -1, :2], axis=-1) < options.within
    return {"score": 100 * near.mean(), "score_low": 100 * bootstrap(near)[0]}


def preset(dataset, spec):
    found = ALGORITHMS["bc"].generic(dataset, spec)
    return found._replace(training={"policy": TrainConfig(num_steps=20)})


TASKS["reach"] = dataclasses.replace(
    CONTROL, name="reach", environments=("Reach-v0",), options=Near, score=score,
    layout=lambda dataset: Layout(position=(0, 1)), presets={("bc", "demo"): preset},
    recipes={"reach": Recipe("own/reach-v0", make, steps=2_000)},
)  # fmt: skip
