"""Data and an environment of one's own: from a file to a score and an action."""

import json
import pathlib
import shlex
import sys

import gymnasium
import h5py
import numpy as np
import pytest

import jaxdiff
from jaxdiff.cli import main
from jaxdiff.data.storage import write_minari
from jaxdiff.tasks.lookup import load_dataset, spec_of

# Sizes alone, so that it compiles in seconds; all other options come from the data.
SMALL_PLANNER = ("--dim", "8", "--dim-mults", "4", "--candidates", "1")
SMALL = {
    "diffuser": (*SMALL_PLANNER, "--replan-every", "20"),
    "decision-diffuser": (*SMALL_PLANNER, "--replan-every", "20"),
}
FOLDER = pathlib.Path(__file__).parent / "extensions"
ENVIRONMENT = "own_environment:Reach-v0"
EPISODES, LENGTH = 12, 100


@pytest.fixture(scope="module")
def recorded():
    """Episodes of the environment, as lists of arrays."""
    sys.path.insert(0, str(FOLDER))
    import own_environment

    yield own_environment.record(EPISODES)
    sys.path.remove(str(FOLDER))
    sys.modules.pop("own_environment", None)


def d4rl_arrays(recorded):
    """The same as flat arrays with D4RL's keys."""
    ends = np.arange(EPISODES * LENGTH) % LENGTH == LENGTH - 1
    return {
        "observations": np.concatenate([rows[:-1] for rows, _, _ in recorded]),
        "next_observations": np.concatenate([rows[1:] for rows, _, _ in recorded]),
        "actions": np.concatenate([actions for _, actions, _ in recorded]),
        "rewards": np.concatenate([rewards for _, _, rewards in recorded]),
        "terminals": np.zeros(EPISODES * LENGTH, bool),
        "timeouts": ends,
    }


def store(kind, recorded, folder):
    arrays = d4rl_arrays(recorded)
    if kind == "npz":
        np.savez(folder / "own.npz", **arrays)
        return folder / "own.npz"
    if kind == "hdf5":
        with h5py.File(folder / "own.hdf5", "w") as file:
            for name, value in arrays.items():
                file[name] = value
        return folder / "own.hdf5"
    env = gymnasium.make("Reach-v0")
    truncations = np.arange(LENGTH) == LENGTH - 1
    (folder / "own").mkdir()
    write_minari(
        folder / "own",
        [
            {
                "observations": rows,
                "actions": actions,
                "rewards": rewards,
                "terminations": np.zeros(LENGTH, bool),
                "truncations": truncations,
            }
            for rows, actions, rewards in recorded
        ],
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        metadata={"dataset_id": "own-v0"},
    )
    return folder / "own"


def test_three_formats_hold_the_same_episodes(recorded, tmp_path):
    found = [
        load_dataset(store(kind, recorded, tmp_path), environment=ENVIRONMENT)
        for kind in ("npz", "hdf5", "minari")
    ]
    assert len({dataset.fingerprint for dataset in found}) == 1
    for dataset in found:
        assert dataset.evaluation.id == ENVIRONMENT
        assert spec_of(dataset).observation_shape == (6,)
        assert spec_of(dataset).action_dim == 2
        assert dataset.episodes.lengths.tolist() == [LENGTH] * EPISODES
    assert found[0].environment is None
    assert found[2].environment.id == "Reach-v0"
    assert found[2].environment.max_episode_steps == 100


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        pytest.param("diffuser", "npz", marks=pytest.mark.slow),
        pytest.param("decision-diffuser", "hdf5", marks=pytest.mark.slow),
        ("diffusion-bc", "minari"),
        ("iql", "npz"),
        pytest.param("srpo", "hdf5", marks=pytest.mark.slow),
    ],
)
def test_own_data_train_score_and_act_first_try(
    algorithm, kind, recorded, tmp_path, capsys
):
    path, run = store(kind, recorded, tmp_path), tmp_path / "run"
    named = ("--dataset", str(path), "--environment", ENVIRONMENT, "--run", str(run))
    quick = ("--num-steps", "4", "--save-every", "4", "--devices", "1")
    main(["train", algorithm, *named, *quick, *SMALL.get(algorithm, ())])
    # What is printed is what scores it.
    *_, said = capsys.readouterr().out.splitlines()
    assert said == f"score it with: jaxdiff evaluate {run} --environment {ENVIRONMENT}"
    again = shlex.split(said.removeprefix("score it with: jaxdiff "))
    main([*again, "--episodes", "2", "--devices", "1"])
    written = json.loads((run / "evaluations" / "000.json").read_text())
    assert "success_rate" in written
    assert written["mean_length"] == 100

    loaded = jaxdiff.load_run(run)
    env = jaxdiff.make_env(loaded, trust=True)
    policy = jaxdiff.load_policy(run)
    observation, _ = env.reset(seed=0)
    policy.reset(seeds=[0])
    for _ in range(3):
        action = policy(observation)
        assert action.shape == (2,)
        observation, *_ = env.step(action)


def test_a_run_never_imports_its_environment_by_itself(recorded, tmp_path, capsys):
    path, run = store("npz", recorded, tmp_path), str(tmp_path / "run")
    named = ("--dataset", str(path), "--environment", ENVIRONMENT, "--run", run)
    main(["train", "bc", *named, "--num-steps", "2", "--devices", "1"])
    with pytest.raises(SystemExit) as end:
        main(["evaluate", run, "--episodes", "2"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "whose module is code" in said
    assert "--trust" in said
    main(["evaluate", run, "--episodes", "2", "--trust"])


def test_data_without_an_environment_ask_for_one_at_the_score(
    recorded, tmp_path, capsys
):
    path, run = store("npz", recorded, tmp_path), str(tmp_path / "run")
    named = ("--dataset", str(path), "--run", run, "--num-steps", "2")
    main(["train", "bc", *named, "--devices", "1"])
    with pytest.raises(SystemExit):
        main(["evaluate", run])
    assert "name one with --environment" in capsys.readouterr().err
