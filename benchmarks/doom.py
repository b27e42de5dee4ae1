r"""Score policies at Doom, beside its demonstrator and a player who acts at random.

    python -m benchmarks.doom [RUN ...] [--methods NAME ...] [--overrides TEXT ...]

Runs, --methods and --overrides are as in `benchmarks.claw`, such as

    python -m benchmarks.doom runs/mse runs/d runs/d --methods mse "Diffusion BC" \
        "Diffusion-X" --overrides "" "" "extra_steps=16"

They play live, 35 tics a second whether or not they are ready: ten minutes take ten
minutes. With --in-turn the game waits, and a decision costs the tics that it takes here
in the median, or that --latency says (see `jaxdiff.tasks.doom.scores`). Rows go to
benchmarks/results/doom.json: kills and deaths in ten minutes, decisions a second,
milliseconds a decision, and action_w_N, how far turns within N tics are from those of
the demonstrator playing in turn (degrees, W1; the demonstrator's own row says what two
samples of it score); means over the runs of one name. A setting is the encoder and
the pixels that it sees; the two players without one have a setting of their own.
Intervals are over minutes.

Beside them is drawn what the demonstrator sees (doom-sights.png), and how far each
method turns in the first second of one game, begun again and again
(doom-turns-SETTING.png): who has learned one way has one hump.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from benchmarks.claw import DEMONSTRATOR, asked, asked_words
from benchmarks.command import run_command
from benchmarks.rows import RESULTS, write_rows
from jaxdiff import figures
from jaxdiff.devices import select_devices
from jaxdiff.errors import UserError
from jaxdiff.rollouts import agent
from jaxdiff.run import load_run
from jaxdiff.scoring import bootstrap
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.doom.scores import (
    MakePolicy,
    Minutes,
    at_random,
    demonstrator,
    first_turns,
    is_doom,
    measure_latency,
    play_minutes,
    rates,
    turn_distances,
)
from jaxdiff.tasks.imitation_figures import plot_first_turns, plot_sights

REFERENCE = 10_000  # added to seeds: minutes of the demonstrator to compare turns with
TURNING = doom.TICS  # tics that first turns are measured for: a second


class Player(NamedTuple):
    """Who plays: one row of the table, or a seed of one."""

    setting: str
    method: str
    block: doom.Block
    make_policy: MakePolicy
    labels: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
    """Score Doom runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders; the demonstrator and chance are scored in any case."""
    methods: tuple[str, ...] = ()
    """What each run is called; its algorithm's name by default."""
    overrides: tuple[str, ...] = ()
    """For each run, options of acting to change: "NAME=VALUE NAME=VALUE"."""
    minutes: int = 10
    """Of play."""
    in_turn: bool = False
    """Let the game wait, and count a decision's time afterwards."""
    latency: float | None = None
    """In turn: seconds that every decision takes, instead of what it took."""
    repeats: int = 40
    """Of the one game whose first turns are drawn; 0 for no pictures."""
    opening: int = 5
    """Seed of that game."""
    seed: int = 1_000
    """Of the first minute."""


def main(options: Options, *, directory: Path = RESULTS) -> None:
    """Play, write the rows and draw.

    Raises:
      UserError: a run of another task, a latency for live play, or what
        `benchmarks.claw.asked` raises.
    """
    if options.latency is not None and not options.in_turn:
        raise UserError("--latency is for play in turn; add --in-turn, or leave it out")
    played: dict[tuple[str, str], list[tuple[Minutes, float | None]]] = {}
    seconds: dict[tuple[str, str], float] = {}
    turns: dict[str, dict[str, np.ndarray]] = {}
    reference = play_minutes(
        demonstrator, 1, minutes=options.minutes, seed=options.seed + REFERENCE,
        labels=True, label="reference",
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
                    "n": sum(len(minutes.kills) for minutes, _ in played[name]),
                    "seeds": len(played[name]),
                    "seconds": seconds[name],
                    **row,
                }
                for row in _rows(played[name], reference)
            ],
            command=_command(options),
            directory=directory,
        )
        if options.repeats:
            turns.setdefault(player.setting, {})[player.method] = first_turns(
                player.make_policy, player.block, repeats=options.repeats,
                seed=options.opening, tics=TURNING, labels=player.labels,
            )  # fmt: skip
    if options.repeats:
        _draw(turns, options, directory / "figures")


def players(options: Options) -> Iterator[Player]:
    """Give the demonstrator, chance and the runs."""
    yield Player("no encoder", DEMONSTRATOR, 1, demonstrator, labels=True)
    yield Player("no encoder", "random", 1, at_random)
    devices = select_devices()[:1]
    for path, method, overrides in asked(options, optional=True):
        run = load_run(path, overrides=overrides)
        if not is_doom(run):
            raise UserError(f"{path} is no run of Doom; name runs of the recipe doom")
        block = doom.block_of_environment(run.document["dataset"]["environment"])
        assert block is not None
        height, width, _ = doom.image_shape(block)

        def policy(envs: list[Any], seed: int, run: Any = run) -> Any:
            return agent(
                run.algorithm, run.states, num_envs=len(envs), seed=seed,
                devices=devices,
            )  # fmt: skip

        setting = f"{run.config.encoder}, {height} x {width}"
        yield Player(setting, method or run.name, block, policy)


def _play(player: Player, options: Options) -> tuple[Minutes, float | None]:
    latency = options.latency
    if options.in_turn and latency is None:
        # The demonstrator and chance decide at once.
        latency = 0.0
        if player.setting != "no encoder":
            latency = measure_latency(player.make_policy, player.block)
    played = play_minutes(
        player.make_policy, player.block, minutes=options.minutes, seed=options.seed,
        live=not options.in_turn, latency=latency, labels=player.labels,
        label=player.method,
    )  # fmt: skip
    return played, latency


def _rows(
    runs: list[tuple[Minutes, float | None]], reference: Minutes
) -> Iterator[dict[str, Any]]:
    """Give the metrics of one method, means over its runs."""
    found = [
        {**rates(minutes, latency), **turn_distances(minutes, reference)}
        for minutes, latency in runs
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
            each = [10 * getattr(minutes, counts[metric]) for minutes, _ in runs]
            row["low"], row["high"] = bootstrap(np.concatenate(each))
        yield row


def _draw(
    turns: dict[str, dict[str, np.ndarray]], options: Options, folder: Path
) -> None:
    """Draw what the demonstrator sees, and the first turns of every setting."""
    env: Any = doom.make_env(labels=True)
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
    reference = turns.pop("no encoder")
    for setting, methods in (turns or {"no encoder": {}}).items():
        drawn = plot_first_turns(
            begin, {**reference, **methods}, seconds=TURNING / doom.TICS
        )
        name = setting.replace(", ", "-").replace(" ", "")
        figures.save(drawn, folder / f"doom-turns-{name}.png")


def _command(options: Options) -> str:
    """Write the command that measures the same again."""
    words = ["python -m benchmarks.doom", *asked_words(options)]
    words += [f"--minutes {options.minutes}", *["--in-turn"] * options.in_turn]
    if options.latency is not None:
        words.append(f"--latency {options.latency:g}")
    return " ".join([*words, f"--seed {options.seed}"])


if __name__ == "__main__":
    run_command(main, Options)
