"""`jaxdiff data`: record datasets and describe them."""

import dataclasses
from typing import Any

import numpy as np

from jaxdiff.cli.flags import HELP, ROOT, SEED, replaced, require_seed
from jaxdiff.cli.parsing import Flag, flags_of, parse, table
from jaxdiff.data.episodes import acted_rows
from jaxdiff.data.oddities import oddities
from jaxdiff.errors import UserError


def make_command(prog: str, args: list[str]) -> None:
    """Record a dataset with a simulator."""
    from jaxdiff.tasks.lookup import recipes

    known = recipes()
    name = next((arg for arg in args if not arg.startswith("-")), None)
    if name is None:
        print(f"usage: {prog} RECIPE [OPTIONS]\n\nRecord a dataset with a simulator.")
        print(f"\nRecipes: {', '.join(known)}")
        print(f"\n`{prog} RECIPE --help` lists the options of a recipe.")
        if not set(args) & set(HELP):
            raise UserError("name a recipe to make")
        return
    if name not in known:
        raise UserError(
            f"there is no recipe {name!r}; choose one of {', '.join(known)}"
        )
    recipe = known[name]
    flags = [
        Flag("recipe", str, "Name of the dataset.", positional=True),
        Flag("steps", int, "Number of transitions.", recipe.steps),
        SEED, ROOT, *flags_of(recipe.options),
    ]  # fmt: skip
    asked = parse(prog, args, flags, f"Record the dataset {recipe.dataset_id}.")
    require_seed(asked["seed"])
    names = [field.name for field in dataclasses.fields(recipe.options)]
    options = recipe.options(**{name: asked[name] for name in names})
    path = recipe.make(
        steps=asked["steps"], seed=asked["seed"], root=asked["root"],
        **{name: getattr(options, name) for name in names},
    )  # fmt: skip
    print(f"{name} is in {path}")


_MOST_COLUMNS = 200  # of a field that are listed one by one; pictures have more


def info_command(prog: str, args: list[str]) -> None:
    """Describe a dataset."""
    from jaxdiff.tasks.lookup import Reading, load_dataset

    flags = [
        Flag("dataset", str, "Recipe, Minari id or path.", positional=True), ROOT,
        *flags_of(Reading()),
    ]  # fmt: skip
    asked = parse(prog, args, flags, "Describe a dataset.")
    dataset = load_dataset(
        asked["dataset"], root=asked["root"], reading=replaced(Reading(), asked)
    )
    episodes = dataset.episodes
    lengths = episodes.lengths
    returns = np.add.reduceat(episodes.rewards.astype(np.float64), episodes.starts)
    environment, evaluation = dataset.environment, dataset.evaluation
    table(
        {
            "name": dataset.name,
            "environment": environment.id if environment else "unknown",
            "evaluation": evaluation.id if evaluation else "unknown",
            "observation shape": "x".join(map(str, dataset.observation_shape)),
            "fingerprint": dataset.fingerprint,
            "episodes": len(lengths),
            "steps": int(lengths.sum()),
            "episode length": (float(lengths.min()), float(lengths.max())),
            "terminated": int(episodes.terminated.sum()),
            "return, mean": float(returns.mean()),
            "return, range": (float(returns.min()), float(returns.max())),
            **{
                f"mean return, {policy}": float(value)
                for policy, value in dataset.references.items()
            },
        }
    )
    _print_ranges(episodes)
    for oddity in oddities(episodes):
        print(f"odd: {oddity}")


def _print_ranges(episodes: Any) -> None:
    acted = acted_rows(episodes)
    print(f"\n{'field':<16}{'smallest':>12}{'mean':>12}{'largest':>12}")
    for field in ("observations", "actions", "rewards", "goals"):
        array = getattr(episodes, field)
        if array is None:
            continue
        if field in ("actions", "rewards"):
            array = array[acted]  # the others are padding
        columns = {
            f"{field} {i}": column
            for i, column in enumerate(array.reshape(len(array), -1).T)
        }
        if len(columns) > _MOST_COLUMNS:
            columns = {f"{field}, all": array}
        for label, column in columns.items():
            mean = float(column.mean(dtype=np.float64))
            low, high = float(column.min()), float(column.max())
            print(f"{label:<16}{low:>12.4g}{mean:>12.4g}{high:>12.4g}")
