"""What a stranger adds in one file each runs from the command line by --import."""

import json
import pathlib
import sys

import pytest

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.planning.network import NETWORKS
from jaxdiff.cli import main
from jaxdiff.diffusion import SAMPLERS
from jaxdiff.tasks.lookup import TASKS

FOLDER = pathlib.Path(__file__).parent / "extensions"
OWN = ("own_algorithm", "own_task", "own_sampler", "own_network", "own_environment")
TINY_PLANNER = (
    *("--horizon", "8", "--horizons", "8", "--diffusion-steps", "4", "--dim", "8"),
    *("--dim-mults", "4", "--num-steps", "4", "--batch-size", "8", "--devices", "1"),
    *("--sampling-steps", "4", "--save-every", "4", "--log-every", "4"),
    *("--no-return-model", "--rank", "consistency", "--guide-scale", "0"),
)


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Let the modules be imported, and forget afterwards what they registered."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    yield tmp_path
    for table in (ALGORITHMS, TASKS, SAMPLERS, NETWORKS):
        for name in {"linear", "reach", "ddim-half", "dense"} & set(table):
            del table[name]
    for name in OWN:
        sys.modules.pop(name, None)


@pytest.fixture
def reach(own):
    main(["data", "make", "reach", "--steps", "1000", "--import", "own_task"])
    return own


@pytest.mark.parametrize(
    ("name", "most"),
    [("own_algorithm", 80), ("own_task", 60), ("own_sampler", 20), ("own_network", 20)],
)
def test_each_is_one_short_file(name, most):
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= most


def test_an_algorithm_trains_scores_and_has_its_flags(reach, capsys):
    run = str(reach / "run")
    both = ("--import", "own_task", "--import", "own_algorithm")
    named = ("--dataset", "reach", "--run", run, "--num-steps", "200")
    main(["train", "linear", *both, *named, "--learning-rate", "0.05"])
    main(["evaluate", run, "--episodes", "5", "--scale", "1.5", *both])
    written = json.loads((reach / "run" / "evaluations" / "000.json").read_text())
    assert written["score"] > 50
    assert written["overrides"] == {"scale": 1.5}
    with pytest.raises(SystemExit) as end:
        main(["evaluate", run, "--expectile", "0.5", *both])
    assert end.value.code == 2
    main(["--help", *both])
    assert "train linear" in capsys.readouterr().out


def test_a_task_brings_recipe_preset_options_and_score(reach, capsys):
    run = str(reach / "run")
    imported = ("--import", "own_task")
    main(["train", "bc", "--dataset", "reach", "--run", run, *imported])
    assert "preset demo: policy 20 updates" in capsys.readouterr().err
    main(["evaluate", run, "--episodes", "3", "--within", "9", *imported])
    assert "score" in capsys.readouterr().out
    written = json.loads((reach / "run" / "evaluations" / "000.json").read_text())
    assert written["score"] == 100
    main(["list", *imported])
    assert "reach (made)" in capsys.readouterr().out


def test_a_network_and_a_sampler_serve_diffuser(reach):
    run = str(reach / "run")
    named = ("--dataset", "reach", "--run", run)
    mine = ("--import", "own_task", "--import", "own_network", "--network", "dense")
    half = ("--import", "own_sampler", "--sampler", "ddim-half")
    main(["train", "diffuser", *named, *mine, *half, *TINY_PLANNER])
    imported = [word for word in (*mine, *half) if word.startswith(("--import", "own"))]
    main(["evaluate", run, "--episodes", "2", *imported])
    written = json.loads((reach / "run" / "evaluations" / "000.json").read_text())
    assert written["acting"]["sampler"] == "ddim-half"


def test_a_run_that_needs_a_module_says_which_name_is_missing(reach, capsys):
    run = str(reach / "run")
    imported = ("--import", "own_task", "--import", "own_algorithm")
    main(["train", "linear", *imported, "--dataset", "reach", "--run", run])
    del ALGORITHMS["linear"]
    with pytest.raises(SystemExit) as end:
        main(["evaluate", run, "--import", "own_task"])
    assert end.value.code == 2
    assert "there is no algorithm 'linear'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["list", "--import", "nowhere_to_be_found"])
    assert "'nowhere_to_be_found' cannot be imported" in capsys.readouterr().err
