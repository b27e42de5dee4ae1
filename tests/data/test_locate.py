import os
import pathlib
import re

import pytest

from jaxdiff.data.locate import dataset_folder, local_datasets, locate
from jaxdiff.errors import UserError


def folder(root, dataset_id):
    path = root / dataset_id / "data"
    path.mkdir(parents=True)
    (path / "metadata.json").write_text("{}")
    return path.parent


def test_an_id_is_found_in_the_folder_of_datasets(tmp_path, monkeypatch):
    made = folder(tmp_path, "my/toy-v3")
    assert locate("my/toy-v3", root=tmp_path) == made
    assert dataset_folder("my/toy-v3", tmp_path) == made
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert locate("my/toy-v3") == made
    assert locate(str(made)) == made
    folder(tmp_path, "my/.toy-v4.partial")
    assert local_datasets() == ["my/toy-v3"]


def test_an_unknown_name_says_where_was_looked_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    for name, advice in (
        ("no-such-recipe", "a recipe .*, a Minari id or a path"),
        ("a b", "a recipe .*, a Minari id or a path"),
        ("D4RL/door/human-v2", "`download=True`"),
    ):
        with pytest.raises(UserError, match=advice) as error:
            locate(name)
        assert str(tmp_path) in str(error.value)
    with pytest.raises(UserError, match="a recipe"):
        locate("no-such-recipe", download=True)


def test_remote_dataset_without_network(tmp_path, monkeypatch):
    import minari

    def fail(name):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(minari, "download_dataset", fail)
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    with pytest.raises(UserError, match=r"'D4RL/door/human-v2' \(no route to host\)"):
        locate("D4RL/door/human-v2", root=tmp_path, download=True)
    assert "MINARI_DATASETS_PATH" not in os.environ


@pytest.mark.parametrize("name", ["none.hdf5", "none.npz", "/none/at/all"])
def test_missing_path(name):
    with pytest.raises(UserError, match=f"no file or folder {re.escape(name)}"):
        locate(name)


def test_a_path_comes_before_an_id_and_need_hold_no_dataset(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    assert locate("notes.txt") == pathlib.Path("notes.txt")
