from importlib import metadata

import pytest

from jaxdiff.errors import UserError
from jaxdiff.registry import Registry, import_modules


class Point:
    def __init__(self, name, thing):
        self.name, self.value, self._thing = name, f"package:{name}", thing

    def load(self):
        if isinstance(self._thing, Exception):
            raise self._thing
        return self._thing


def test_names_come_from_the_start_from_discovery_and_from_assignment():
    found = []
    table = Registry(
        "letter", {"a": 1}, group="none", discover=lambda: found.append(1) or {"b": 2}
    )
    assert not found
    assert dict(table) == {"a": 1, "b": 2}
    table["c"] = 3
    assert table.find("c") == 3
    assert found == [1]
    with pytest.raises(UserError, match="no letter 'd'; choose one of b, a, c"):
        table.find("d")


def test_entry_points_add_names_and_replace_none(monkeypatch, capsys):
    points = [Point("a", 9), Point("new", 5), Point("bad", ValueError("no luck"))]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    table = Registry("letter", {"a": 1}, group="letters")
    assert dict(table) == {"a": 1, "new": 5}
    assert "'bad' of package:bad cannot be loaded (no luck)" in capsys.readouterr().err


def test_modules_are_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own_words.py").write_text("SAID = []\n")
    (tmp_path / "broken_words.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    import_modules(["own_words"])
    with pytest.raises(UserError, match="cannot be imported"):
        import_modules(["broken_words"])
