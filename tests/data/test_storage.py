import json

import numpy as np
import pytest
from gymnasium import spaces

from jaxdiff.data.readers import read
from jaxdiff.data.storage import replacing, write_minari
from jaxdiff.errors import UserError

METADATA = {"dataset_id": "a/b-v0"}


def episodes(count, steps=100):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {
            "observations": rng.normal(size=(steps + 1, 3)),
            "actions": rng.normal(size=(steps, 2)),
            "rewards": rng.normal(size=steps),
            "terminations": np.arange(steps) == steps - 1,
            "truncations": np.zeros(steps, bool),
        }


def make(folder, count):
    box = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    with replacing(folder) as partial:
        write_minari(
            partial,
            episodes(count),
            observation_space=box,
            action_space=spaces.Box(-9, 9, (2,), np.float64),
            env_spec=None,
            metadata=METADATA,
        )


def test_what_is_written_is_read(tmp_path):
    make(tmp_path / "d", 3)
    recording = read(tmp_path / "d")
    for e, wanted in enumerate(episodes(3)):
        np.testing.assert_array_equal(recording.observations[e], wanted["observations"])
        np.testing.assert_array_equal(recording.actions[e], wanted["actions"])
        np.testing.assert_array_equal(recording.rewards[e], wanted["rewards"])
    data = tmp_path / "d" / "data"
    metadata = json.loads((data / "metadata.json").read_text())
    assert (metadata["total_episodes"], metadata["total_steps"]) == (3, 300)
    megabytes = (data / "main_data.hdf5").stat().st_size / 1e6
    assert metadata["dataset_size"] == pytest.approx(megabytes, abs=0.06)


@pytest.mark.parametrize("size", [100, 3000, 40_000])
def test_a_full_disk_is_one_sentence_and_the_dataset_before_is_left(
    tmp_path, room, size
):
    make(tmp_path / "d", 1)
    room(size)
    with pytest.raises(UserError, match=r"d cannot be written \(File too large\); "):
        make(tmp_path / "d", 9)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert len(read(tmp_path / "d").actions) == 1
