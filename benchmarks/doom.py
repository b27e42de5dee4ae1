r"""Score policies at Doom, beside its demonstrator and a player that acts at random.

    python -m benchmarks.doom [RUN ...] [--methods NAME ...] [--overrides TEXT ...]

Runs, --methods and --overrides are as in `benchmarks.claw`, such as

    python -m benchmarks.doom runs/mse runs/d runs/d --methods mse "Diffusion BC" \
        "Diffusion-X" --overrides "" "" "extra_steps=16"

They play live at 35 tics a second whether or not they are ready: ten minutes take ten
minutes. With --in-turn the game waits, and a decision costs the median of the tics that
it takes here, or those of --latency (see `jaxdiff.tasks.doom.play`). Rows go to
benchmarks/results/doom.json: kills and deaths in ten minutes, decisions a second,
milliseconds a decision, and action_w_N, the distance (degrees, W1) between turns within
N tics and those of the demonstrator playing in turn. The demonstrator's own row
compares two samples of it. Values are means over the runs of one name. A setting is the
encoder and the pixels that it sees; the two players without an encoder have their own
setting. Intervals are over minutes.

doom-sights.png shows what the demonstrator sees, and doom-turns-SETTING.png how far
each method turns in the first second of one game, begun again and again: a method that
has learned one way has one hump.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.command import command_of, run_command
from benchmarks.doom_figures import plot_first_turns, plot_sights
from benchmarks.methods import DEMONSTRATOR, MethodOptions, asked
from benchmarks.rows import RESULTS, write_rows
from jaxdiff import figures
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.run import Run
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks.doom import TASK
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.doom.environment import make_env
from jaxdiff.tasks.doom.play import (
    Demonstrator,
    DoomOptions,
    MakePlayer,
    Minutes,
    first_turns,
    play_minutes,
    random_player,
)
from jaxdiff.tasks.doom.scores import rates, turn_distances
from jaxdiff.tasks.lookup import task_of

REFERENCE = 10_000  # added to seeds: minutes of the demonstrator to compare turns with
TURNING = doom.TICS  # tics that first turns are measured for: a second
ALONE = "no encoder"  # setting of the players that see no picture


class Player(NamedTuple):
    """One row of the table, or one seed of it.

    Attributes:
      setting: of its rows.
      method: of its rows.
      block: block size of the pictures that it sees.
      make: makes what acts.
      labels: it needs to be told where monsters are.
    """

    setting: str
    method: str
    block: doom.Block
    make: MakePlayer
    labels: bool = False


@dataclasses.dataclass(frozen=True)
class Options(MethodOptions):
    """Score Doom runs; the demonstrator and chance are scored in any case."""

    minutes: int = 10
    """Minutes of play."""
    in_turn: bool = False
    """Let the game wait, and count a decision's time afterwards."""
    latency: float | None = None
    """In turn: seconds that every decision takes, instead of what it took."""
    repeats: int = 40
    """Repeats of the game for the picture of first turns; 0 for no pictures."""
    opening: int = 5
    """Seed of that game."""
    seed: int = 1_000
    """Seed of the first minute."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, write the rows and draw.

    Raises:
      UserError: a run of another task, a latency for live play, or what
        `benchmarks.methods.asked` raises.
    """
    if options.latency is not None and not options.in_turn:
        raise UserError(
            "`latency` is for play in turn; add `in_turn=True`, or leave it out"
        )
    played: dict[tuple[str, str], list[Minutes]] = {}
    seconds: dict[tuple[str, str], float] = {}
    turns: dict[str, dict[str, np.ndarray]] = {}
    reference = play_minutes(
        Demonstrator, 1, DoomOptions(latency=0.0), minutes=options.minutes,
        seed=options.seed + REFERENCE, labels=True, label="reference",
    )  # fmt: skip
    for player in players(options):
        started = time.monotonic()
        how = ", in turn" if options.in_turn else ""
        name = player.setting + how, player.method
        played.setdefault(name, []).append(_play(player, options))
        spent = seconds.get(name, 0.0) + time.monotonic() - started
        seconds[name] = round(spent, 1)
        write_rows(
            "doom",
            [
                {
                    "setting": name[0],
                    "method": name[1],
                    "n": sum(len(minutes.kills) for minutes in played[name]),
                    "seeds": len(played[name]),
                    "seconds": seconds[name],
                    **row,
                }
                for row in _rows(played[name], reference)
            ],
            command=command_of("doom", options),
            directory=directory,
        )
        if options.repeats:
            turns.setdefault(player.setting, {})[player.method] = first_turns(
                player.make, player.block, repeats=options.repeats,
                seed=options.opening, tics=TURNING, labels=player.labels,
            )  # fmt: skip
    if options.repeats:
        _draw(turns, options, directory / "figures")


def players(options: Options) -> Iterator[Player]:
    """Yield the demonstrator, chance and the runs."""
    runs = asked(options)
    yield Player(ALONE, DEMONSTRATOR, 1, Demonstrator, labels=True)
    yield Player(ALONE, "random", 1, random_player)
    for method, run in runs:
        environment = run.environment()
        if environment is None or task_of(environment) is not TASK:
            raise UserError(
                f"{run.path} is no run of Doom; name runs of the recipe doom"
            )
        block = doom.block_of(environment)
        height, width, _ = doom.image_shape(block)
        setting = f"{run.config.encoder}, {height} x {width}"
        yield Player(setting, method, block, _player_of(run))


def _player_of(run: Run) -> MakePlayer:
    devices = select_devices()[:1]
    return lambda games, seeds: run.policy(len(games), seeds=seeds, devices=devices)


def _play(player: Player, options: Options) -> Minutes:
    latency = options.latency
    if options.in_turn and latency is None and player.setting == ALONE:
        latency = 0.0  # the demonstrator and chance decide at once
    return play_minutes(
        player.make, player.block,
        DoomOptions(latency=latency, live=not options.in_turn),
        minutes=options.minutes, seed=options.seed, labels=player.labels,
        label=player.method,
    )  # fmt: skip


def _rows(runs: list[Minutes], reference: Minutes) -> Iterator[dict[str, Any]]:
    """Yield the metrics of one method, means over its runs."""
    found = [
        {**rates(minutes), **turn_distances(minutes, reference)} for minutes in runs
    ]
    for metric, field, unit in (
        ("kills_per_10min", "kills_per_10min", 1),
        ("decisions_per_second", "decisions_per_second", 1),
        ("milliseconds", "latency", 1000),
        ("deaths_per_10min", "deaths_per_10min", 1),
        *((name, name, 1) for name in found[0] if name.startswith("action_w")),
    ):
        row = {
            "metric": metric,
            "value": unit * float(np.mean([record[field] for record in found])),
        }
        counts = {"kills_per_10min": "kills", "deaths_per_10min": "deaths"}
        if metric in counts:
            each = [10 * getattr(minutes, counts[metric]) for minutes in runs]
            row["low"], row["high"] = bootstrap(np.concatenate(each))
        yield row


def _draw(
    turns: dict[str, dict[str, np.ndarray]], options: Options, folder: Path
) -> None:
    """Draw what the demonstrator sees, and the first turns of every setting."""
    env: Any = make_env(labels=True)
    env.reset(seed=options.opening)
    begin = env.unwrapped.render()
    rng, state, game = np.random.default_rng(0), doom.DemonstratorState(), env.unwrapped
    sights = []
    for _ in range(6):
        window = []
        for _ in range(2 * doom.TICS):
            monsters, picture = game.monsters(), game.render()
            action, state = doom.demonstrate(state, monsters, game.pitch(), rng)
            window.append((picture, monsters, state.target))
            env.step(action)
        # Where there are many monsters there is a choice.
        sights.append(max(window, key=lambda sight: len(sight[1])))
    env.close()
    figures.save(plot_sights(sights), folder / "doom-sights.png")
    reference = turns.pop(ALONE)
    for setting, methods in (turns or {ALONE: {}}).items():
        drawn = plot_first_turns(
            begin, {**reference, **methods}, seconds=TURNING / doom.TICS
        )
        name = setting.replace(", ", "-").replace(" ", "")
        figures.save(drawn, folder / f"doom-turns-{name}.png")


if __name__ == "__main__":
    run_command(main, Options)
