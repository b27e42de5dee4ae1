"""Scores at Doom: kills, and how often a policy decides while the game goes on."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdiff.scoring import bootstrap, reference_scores
from jaxdiff.tasks.doom import world as doom
from jaxdiff.tasks.doom.play import Minutes
from jaxdiff.tasks.metrics import matched_wasserstein, window_sums


def score(
    played: Minutes, options: Any, references: Mapping[str, float]
) -> dict[str, Any]:
    """Score minutes by kills.

    Args:
      played: N minutes.
      options: options of the task; not read.
      references: kills in a minute, of a random player and of the demonstrator. Both
        decide in no time.
    """
    kills = float(played.kills.mean())
    record = reference_scores(references, kills, bootstrap(played.kills))
    scale = {}
    if record:
        chance, expert = (round(10 * references[who]) for who in ("random", "expert"))
        scale["scale"] = (
            f"0 is {chance} kills in 10 minutes, at random, and 100 is {expert}, of "
            "the demonstrator"
        )
    return {"live": played.latency is None, **record, **scale, **rates(played)}


def rates(played: Minutes) -> dict[str, Any]:
    """Return kills and deaths in ten minutes, and the time that decisions took."""
    low, high = bootstrap(10 * played.kills)
    live = played.latency is None
    clock = played.seconds if live else played.tics / doom.TICS
    return {
        "kills_per_10min": 10 * float(played.kills.mean()),
        "kills_interval": (low, high),
        "deaths_per_10min": 10 * float(played.deaths.mean()),
        "decisions_per_second": float((played.decisions / clock).mean()),
        "tics_per_decision": float(played.tics.sum() / played.decisions.sum()),
        "latency": played.thinking if live else played.latency,
    }


def turn_distances(
    played: Minutes, reference: Minutes, lengths: Sequence[int] = (2, 35, 70)
) -> dict[str, float]:
    """Compare turns within windows of time with another player's.

    Args:
      played: minutes of a policy.
      reference: minutes of the demonstrator.
      lengths: lengths of the windows in tics; 35 tics are a second.

    Returns:
      "action_w_N" for each length N: the distance W1, in degrees, between the sums of
      turns in all windows of N tics, see `jaxdiff.tasks.metrics.matched_wasserstein`.
    """
    return {
        f"action_w_{length}": matched_wasserstein(
            window_sums(played.turned, length), window_sums(reference.turned, length)
        )
        for length in lengths
    }
