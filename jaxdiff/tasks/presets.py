"""Named options: `demo` for a laptop, `released` as in the authors' code, `paper`.

Where the paper and the released code of Diffuser disagree on the mazes, the text of the
paper names a smaller learning rate and fewer updates, and a horizon of 265 in the
medium maze, which three levels cannot halve: 264 stands in for it. Both execute one
plan an episode with a unit-gain controller.

In Hopper, Walker2d and HalfCheetah plans are guided by a model of returns and renewed
at every step. The released code guides x_t before a denoising step, twice, and not in
the last steps; the paper guides the mean after it, once (algorithm 1).

Policies that imitate have the same networks and training, with diffusion and without.
For the claw machine `released` is the full script of Pearce et al. (2023), batch norm
and all, and `demo` their small one with layer norm and a faster encoder. Of the
kitchen the paper names two observations, T = 50 and the transformer; learning rate,
batch and averaging are those of CleanDiffuser, in PushT too. Of aim training it names
pictures of 150 x 280 pixels, the sieve and T = 20; how it was trained there is not
published, and learning rate, batch and updates of `paper` are ours. The laptop may
learn from smaller pictures; its encoder is one convolution that sees two at a time.
The paper's schedule of T = 20 never hides a click, for its last level leaves most of it
in sight: sampling, which begins with noise, then does what the noise says. In Doom
`demo` rescales the schedule to the number of its steps; in the kitchen, where T = 50,
that makes a policy worse (benchmarks/README.md). In PushT, where actions are places on
a table of 512 pixels, some 38 from the agent, `demo` learns how far they lie from it.
`paper` is the same as `released`.

Decision Diffuser has the released options for Hopper in all three tasks, for those of
the others were never published. The paper knows a history of 20 states, T = 100 and a
wider model of actions; the code T = 200 and no history. `demo` has Diffuser's networks,
so that the two can be compared, and so do all presets of the mazes, where goals are
clamped as Diffuser clamps them; but where one goal pays, plans are told the return and
no goal.

Algorithms of offline reinforcement learning have theirs in `jaxdiff.tasks.offline_presets`.
"""

import dataclasses
from typing import Any

from jaxdiff.algorithms.imitation.bc import BCConfig
from jaxdiff.algorithms.imitation.diffusion_bc import DiffusionBCConfig
from jaxdiff.algorithms.planning.decision_diffuser import DecisionDiffuserConfig
from jaxdiff.algorithms.planning.diffuser import DiffuserConfig
from jaxdiff.errors import UserError
from jaxdiff.networks import horizon_multiple
from jaxdiff.tasks.doom.world import Block, image_shape
from jaxdiff.tasks.offline_presets import OFFLINE, offline_preset
from jaxdiff.tasks.pointmaze.world import setting_of_dataset
from jaxdiff.train import TrainConfig

PRESETS = ("demo", "released", "paper")

# Maze -> horizon and diffusion steps of the released configurations.
_RELEASED = {"umaze": (128, 64), "medium": (256, 256), "large": (384, 256)}

# Maze -> updates on a laptop.
_UPDATES = {"umaze": 3_000, "medium": 14_000, "large": 22_000}

# What the larger mazes need to be learned on a laptop; see benchmarks/study.py.
_LARGER: dict[str, dict[str, Any]] = {
    "medium": {
        "train_horizons": (80, 144, 208),
        "dim_mults": (1, 2, 4, 4),
        "candidates": 4,
    },
    "large": {
        "train_horizons": (128, 224, 320),
        "dim_mults": (2, 4, 4, 4),
        "patch": 4,
        "noise_shift": 3.0,
        "candidates": 16,
        # A shorter plan that is hardly less consistent cuts through walls here.
        "slack": 1.15,
    },
}

_IMITATION = {"bc": BCConfig, "diffusion-bc": DiffusionBCConfig}

# Task of control -> horizon, and strength and last level of the released guidance.
_CONTROL = {
    "hopper": (32, 0.1, 2),
    "walker2d": (32, 0.1, 2),
    "halfcheetah": (4, 1e-3, 4),
}


def preset(
    algorithm: str, name: str, dataset: str
) -> tuple[Any, dict[str, TrainConfig]]:
    """Return the options of an algorithm, and of training by the learner's name.

    Args:
      algorithm: a name of `jaxdiff.algorithms.ALGORITHMS`.
      name: one of `PRESETS`.
      dataset: a name of a dataset: a recipe, Minari id or path that says which maze or
        task of control it is of. Others get the options of UMaze.

    Raises:
      UserError: no such preset.
    """
    if name not in PRESETS:
        raise UserError(
            f"there is no preset {name!r} for {algorithm}; choose one of "
            f"{', '.join(PRESETS)}"
        )
    if algorithm in OFFLINE:
        return offline_preset(algorithm, name, dataset.lower())
    words = dataset.lower().replace("_", "-")
    if algorithm in _IMITATION:
        options, training = _imitation(name, words)
        if algorithm == "diffusion-bc" and "doom" in words:
            options["diffusion_steps"] = 20
            if name == "demo":
                options["schedule"] = "linear_rescaled"
        return _IMITATION[algorithm](**options), {"policy": training}
    task = next((task for task in _CONTROL if task in words), None)
    if algorithm == "decision-diffuser":
        return _decisions(name, task, words)
    if task is not None:
        return _control(name, task, words)
    config, training = _maze(name, dataset)
    return config, {"denoiser": training, "returns": training}


def _imitation(name: str, dataset: str) -> tuple[dict[str, Any], TrainConfig]:
    """Options of any policy that imitates, in place of its defaults."""
    demo = name == "demo"
    norm = "layer" if demo else "batch"
    if "claw" in dataset:
        # Epochs of 18,000 decisions.
        updates = 22_500 if demo else 56_250
        options = {
            "network": "sieve" if demo else "transformer",
            "hidden": 128 if demo else 512,
            "image_shape": (32, 32, 3),
            "encoder": "strided" if demo else "residual",
            "norm": norm,
            "learning_rate": 1e-3 if demo else 1e-4,
            "learning_rate_decay": updates,
            "ema_decay": 0.995 if demo else 0.0,
            "lean": demo,
        }
        return options, TrainConfig(num_steps=updates, log_every=100)
    if "doom" in dataset:
        block: Block = 4 if "quarter" in dataset else 2 if "half" in dataset else 1
        updates = 7_000 if demo else 100_000
        options = {
            "network": "sieve",
            "hidden": 256 if demo else 512,
            "history": 2,
            "image_shape": image_shape(block),
            "encoder": "patches" if demo else "residual",
            "stacked": demo,
            "norm": norm,
            "host_memory": block == 1,
            "learning_rate": 1e-3 if demo else 1e-4,
            "learning_rate_decay": updates,
            "ema_decay": 0.995 if demo else 0.9999,
        }
        training = TrainConfig(num_steps=updates, batch_size=64, log_every=50)
        return options, training
    if "kitchen" in dataset or "pusht" in dataset:
        # Two observations tell the velocity of joints, or of the agent that pushes.
        updates = (30_000 if "pusht" in dataset else 20_000) if demo else 1_000_000
        options = {
            "network": "sieve" if demo or "pusht" in dataset else "transformer",
            "history": 2,
            "norm": norm,
            "lean": demo,
            "relative": demo and "pusht" in dataset,
            "learning_rate_decay": updates,
            "ema_decay": 0.995 if demo else 0.9999,
        }
        training = TrainConfig(
            num_steps=updates,
            batch_size=256 if demo else 512,
            log_every=100,
            save_every=1_000 if demo else 10_000,
        )
        return options, training
    # One kind for all presets: no paper's numbers are at stake.
    return {}, TrainConfig(num_steps=20_000, batch_size=256, log_every=500)


def _maze(name: str, dataset: str) -> tuple[DiffuserConfig, TrainConfig]:
    maze = next((maze for maze in _RELEASED if maze in dataset), "umaze")
    horizon, diffusion_steps = _RELEASED[maze]
    if name == "demo":
        config = DiffuserConfig(
            horizon=horizon,
            train_horizons=(40, 72, 104),
            sampling_steps=32,
            lost=0.5,
        )
        updates, multiple = _UPDATES[maze], 8
        if maze in _LARGER:
            config = dataclasses.replace(
                config,
                show_ends=True,
                learning_rate_decay=updates,
                sampling_steps=16,
                **_LARGER[maze],
            )
            multiple = horizon_multiple(config.dim_mults, config.patch)
        config = dataclasses.replace(config, horizons=_horizons(horizon, multiple))
        return config, TrainConfig(num_steps=updates, save_every=500, keep=2)
    config = DiffuserConfig(
        horizon=horizon if horizon != 256 or name == "released" else 264,
        horizons=_horizons(horizon),
        diffusion_steps=diffusion_steps,
        dim_mults=(1, 4, 8),
        prediction="x0",
        action_weight=1.0,
        goal_dim=4,
        learning_rate=2e-4 if name == "released" else 4e-5,
        accumulate=2,
        ema_every=10,
        ema_start=2_000,
        candidates=1,
        choose="fixed",
        kp=1.0,
        kd=1.0,
    )
    updates = 2_000_000 if name == "released" else 500_000
    return config, TrainConfig(
        num_steps=updates, batch_size=64, log_every=100, save_every=10_000
    )


def _horizons(horizon: int, multiple: int = 8) -> tuple[int, ...]:
    """Eight horizons from a fifth of the default to a quarter more, in multiples."""
    shares = (0.19, 0.31, 0.44, 0.56, 0.72, 0.88, 1.06, 1.25)
    return tuple(multiple * round(share * horizon / multiple) for share in shares)


def _control(
    name: str, task: str, dataset: str
) -> tuple[DiffuserConfig, dict[str, TrainConfig]]:
    horizon, guide_scale, guide_stop = _CONTROL[task]
    if task == "hopper" and "medium-expert" in dataset:
        # As released; on a laptop's model more of it does no harm (benchmarks/hopper).
        guide_scale, guide_stop = (1e-2 if name == "demo" else 1e-4), 4
    cheetah = task == "halfcheetah"
    released = DiffuserConfig(
        horizon=horizon,
        horizons=(),
        diffusion_steps=20,
        dim_mults=(1, 4, 8) if cheetah else (1, 2, 4, 8),
        attention=cheetah,
        prediction="x0",
        clip=None,
        normalizer="gaussian",
        padding=True,
        action_weight=1.0,
        first_action_weight=10.0,
        goal_dim=0,
        learning_rate=2e-4,
        accumulate=2,
        ema_every=10,
        ema_start=2_000,
        return_model=True,
        candidates=64,
        guide_scale=guide_scale,
        guide_steps=2,
        guide_stop=guide_stop,
        rank="return",
        choose="fixed",
        controller="action",
        replan_every=1,
    )
    if name == "demo":
        config = dataclasses.replace(
            released,
            dim_mults=(1, 2, 4),
            attention=False,
            prediction="v",
            learning_rate=1e-3,
            learning_rate_decay=20_000,
            accumulate=1,
            ema_every=1,
            ema_start=0,
            sampling_steps=5,
            # Between two ways to hop a full draw of noise falls; see benchmarks/hopper.
            temperature=0.5,
            candidates=8,
            # What is planned at every step costs a CPU minutes an episode.
            replan_every=4,
        )
        training = TrainConfig(num_steps=config.learning_rate_decay)
        return config, {"denoiser": training, "returns": training}
    config, updates = released, 1_000_000
    if name == "paper":
        config = dataclasses.replace(
            released, learning_rate=4e-5, guide_at="mean", guide_steps=1, guide_stop=0
        )
        updates = 500_000
    training = TrainConfig(
        num_steps=updates, batch_size=64, log_every=100, save_every=10_000
    )
    # The model of returns is trained for a fifth of the released updates.
    returns = dataclasses.replace(training, num_steps=200_000)
    return config, {"denoiser": training, "returns": returns}


def _decisions(
    name: str, task: str | None, dataset: str
) -> tuple[DecisionDiffuserConfig, dict[str, TrainConfig]]:
    if task is None:
        diffuser, training = _maze(name, dataset)
        shared = _shared(diffuser)
        if setting_of_dataset(dataset) == "single":
            # One goal, that nobody is told: the return is all there is to ask for. A
            # plan without a goal is followed to its end unless it is renewed before.
            shared |= {"goal_dim": 0, "choose": "fixed", "replan_every": 32}
            shared |= {"horizons": (), "train_horizons": ()}
        config = DecisionDiffuserConfig(**shared, discount=0.99, termination_penalty=0)
        return config, {"denoiser": training, "inverse": training}
    if name == "demo":
        diffuser, training = _control(name, task, dataset)
        shared = _shared(diffuser)
        # Plans of the CDF's units end at 1; those of Diffuser here know no end.
        shared |= {"normalizer": "cdf", "clip": 1.0, "candidates": 1}
        config = DecisionDiffuserConfig(**shared)
        training = training["denoiser"]
        return config, {"denoiser": training, "inverse": training}
    released = DecisionDiffuserConfig(
        discount=0.99,
        target=0.9 if name == "released" else 1.0,
        horizon=100,
        diffusion_steps=200,
        dim=128,
        dim_mults=(1, 4, 8),
        prediction="noise",
        learning_rate=2e-4,
        accumulate=2,
        ema_every=10,
        ema_start=2_000,
    )
    if task == "hopper" and "medium-expert" in dataset:
        # The one number of the released code to divide returns by.
        released = dataclasses.replace(released, return_range=(0.0, 400.0))
    config, updates, batch = released, 1_000_000, 64
    if name == "paper":
        config = dataclasses.replace(
            released, return_range=(), history=20, diffusion_steps=100,
            inverse_width=512, accumulate=1,
        )  # fmt: skip
        updates, batch = 2_000_000, 32
    training = TrainConfig(
        num_steps=updates, batch_size=batch, log_every=100, save_every=10_000
    )
    return config, {"denoiser": training, "inverse": training}


def _shared(diffuser: DiffuserConfig) -> dict[str, Any]:
    """Options of Diffuser that Decision Diffuser has too, but for the returns'."""
    names = {field.name for field in dataclasses.fields(DecisionDiffuserConfig)}
    names -= {"discount", "termination_penalty", "temperature"}
    return {key: value for key, value in vars(diffuser).items() if key in names}
