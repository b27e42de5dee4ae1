"""Episodes on disk: whole or not there."""

import numpy as np
import pytest

from jaxdiff.episode_log import EpisodeLog
from jaxdiff.errors import UserError


def test_what_is_written_is_read(tmp_path):
    log = EpisodeLog(tmp_path / "a" / "b")
    assert log.read() == {}
    log.write(7, {"seed": 7, "path": np.arange(6.0).reshape(3, 2), "goal": None})
    log.write(2, {"seed": 2, "path": np.zeros((1, 2))})
    read = EpisodeLog(log.folder).read()
    assert sorted(read) == [2, 7]
    assert sorted(read[7]) == ["path", "seed"]
    np.testing.assert_array_equal(read[7]["path"], [[0, 1], [2, 3], [4, 5]])
    log.remove()
    assert log.read() == {}
    log.remove()


def test_a_damaged_file_counts_as_not_played(tmp_path):
    log = EpisodeLog(tmp_path)
    log.write(1, {"seed": 1})
    log.write(2, {"seed": 2})
    whole = (tmp_path / "2.npz").read_bytes()
    (tmp_path / "2.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "3.npz").write_bytes(b"")
    (tmp_path / "odd.npz").write_bytes(whole)
    (tmp_path / "4.partial").write_bytes(whole)
    assert list(log.read()) == [1]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        EpisodeLog(tmp_path / "file" / "log").write(1, {"seed": 1})
