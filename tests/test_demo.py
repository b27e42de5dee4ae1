"""The demo goes from nothing to scores and pictures, and goes on where it stopped."""

import dataclasses
import json

import pytest

from jaxdiff import demo
from jaxdiff.algorithms.base import Preset, TrainConfig
from jaxdiff.algorithms.planning.diffuser import DiffuserActing, DiffuserConfig
from jaxdiff.tasks.pointmaze import TASK

pytest.importorskip("gymnasium_robotics")

# A preset that trains in seconds; it plans, if badly.
SMALL = Preset(
    DiffuserConfig(
        horizon=16, horizons=(8, 16, 24), goal_dim=2, dim=8, dim_mults=(1,),
        diffusion_steps=2,
    ),
    DiffuserActing(choose="earliest", controller="track"),
    {"denoiser": TrainConfig(num_steps=2, batch_size=8)},
)  # fmt: skip


@pytest.mark.slow  # a minute: it compiles everything that planning needs
def test_the_demo_makes_data_a_run_scores_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "DATA_STEPS", 1200)
    monkeypatch.setattr(demo, "BATCH", 8)
    monkeypatch.setitem(TASK.presets, ("diffuser", "demo"), lambda *_: SMALL)
    record = demo.demo(tmp_path, episodes=2)
    stored = json.loads((tmp_path / "demo.json").read_text())
    assert stored == record
    assert (record["episodes"], record["updates"]) == (2, 2)
    assert record["expert_return"] > record["random_return"]
    pictures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert pictures == {"plans.png", "horizons.png", "denoising.png"}
    # Data and updates that are there already are not made again.
    monkeypatch.setattr(demo, "evaluate", lambda run, **_: (record, None))
    monkeypatch.setattr(demo, "_draw", lambda *_: 0.0)
    recipe = dataclasses.replace(demo.RECIPES[demo.RECIPE], make=None)
    monkeypatch.setitem(demo.RECIPES, demo.RECIPE, recipe)
    assert demo.demo(tmp_path, episodes=2, num_steps=3)["updates"] == 3
