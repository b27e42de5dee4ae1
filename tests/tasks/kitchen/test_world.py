"""The kitchens: what is seen, when tasks are done, and what the toy one does."""

import gymnasium
import numpy as np
import pytest

import jaxdiff.tasks.kitchen.toy_environment  # noqa: F401
from jaxdiff.data.spec import Environment
from jaxdiff.data.storage import write_minari
from jaxdiff.errors import UserError
from jaxdiff.tasks.kitchen import TASK, toy
from jaxdiff.tasks.kitchen import world as kitchen
from jaxdiff.tasks.kitchen.recipe import record_episode
from jaxdiff.tasks.kitchen.scores import demonstrations
from jaxdiff.tasks.kitchen.world import TASKS, completions, seen
from jaxdiff.tasks.lookup import load_dataset

NAMES = list(TASKS)


def franka(**options):
    robotics = pytest.importorskip("gymnasium_robotics")
    gymnasium.register_envs(robotics)
    return gymnasium.make(kitchen.FRANKA, disable_env_checker=True, **options)


def at_goal(*tasks):
    """Positions in which these tasks are done and no others."""
    positions = np.full(30, 5.0)
    for task in tasks:
        positions[TASKS[task].entries] = TASKS[task].goal
    return positions


def test_policies_see_positions():
    shown = np.arange(59.0)
    np.testing.assert_array_equal(seen(shown), [*range(9), *range(18, 39)])
    assert seen(np.zeros((4, 59))).shape == (4, 30)
    with pytest.raises(UserError, match="59 numbers, not 60"):
        seen(np.zeros(60))


def test_tasks_count_once_in_the_order_in_which_they_are_done():
    nothing = at_goal()
    path = [nothing, nothing, at_goal("kettle"), at_goal("kettle", "microwave")]
    assert completions(np.stack(path)) == [("kettle", 2), ("microwave", 3)]
    # Undone and done again.
    again = [*path, nothing, at_goal("kettle", "light switch")]
    found = [("kettle", 2), ("microwave", 3), ("light switch", 5)]
    assert completions(np.stack(again)) == found
    # Two at once, in the order of the tasks; the start is no step.
    both = at_goal("microwave", "bottom burner")
    assert completions(np.stack([both, both])) == [
        ("bottom burner", 1),
        ("microwave", 1),
    ]
    assert completions(np.stack([both, nothing])) == []
    near, far = at_goal("microwave"), at_goal("microwave")
    near[TASKS["microwave"].entries] += 0.299
    far[TASKS["microwave"].entries] += 0.301
    assert completions(np.stack([nothing, near])) == [("microwave", 1)]
    assert completions(np.stack([nothing, far])) == []


def test_the_franka_kitchen_counts_as_we_do():
    env = franka()
    # What the recording counted does not matter, only its id.
    recorded = {"tasks_to_complete": ["kettle"]}
    wrapped = TASK.make_env(Environment(kitchen.FRANKA, recorded, 450))
    assert wrapped.spec.max_episode_steps == 280
    assert len(wrapped.unwrapped.goal) == 7
    inner = env.unwrapped
    first, _ = env.reset(seed=0)
    assert wrapped.reset(seed=0)[0].shape == wrapped.observation_space.shape == (30,)
    path, told, action = [seen(first["observation"])], [], np.zeros(9)
    for step, task in enumerate(["microwave", "slide cabinet", None, "hinge cabinet"]):
        # Someone else's hand.
        if task is not None:
            inner.data.qpos[TASKS[task].entries] = TASKS[task].goal
        observation, reward, _, _, info = env.step(action)
        positions = seen(observation["observation"])
        for name, achieved in observation["achieved_goal"].items():
            np.testing.assert_allclose(
                positions[TASKS[name].entries], achieved, atol=1e-3
            )
            np.testing.assert_array_equal(
                observation["desired_goal"][name], TASKS[name].goal
            )
        path.append(positions)
        told += [(name, step + 1) for name in info["step_task_completions"]]
        assert reward == (task is not None)
    assert completions(np.stack(path)) == told
    assert [name for name, _ in told] == ["microwave", "slide cabinet", "hinge cabinet"]
    assert set(env.observation_space["desired_goal"].spaces) == set(TASKS)


def test_handles_are_equally_far_and_follow_only_the_hand_that_holds_them():
    gaps = np.linalg.norm(toy.HANDLES[:, None] - toy.HANDLES[None], axis=-1)
    np.testing.assert_allclose(gaps[~np.eye(7, dtype=bool)], 1.2 * np.sqrt(2))
    along = toy.grips(np.ones(7))[3] - toy.HANDLES[3]
    unit = along / np.linalg.norm(along)
    closed = np.zeros(7)
    state = toy.KitchenState(toy.HANDLES[3], closed)
    moved = toy.advance(state, unit)
    # The hand moves 0.16 of the line's 0.8.
    np.testing.assert_allclose(moved.drawn, 0.2 * np.eye(7)[3], atol=1e-12)
    # Back again: it stays open.
    back = toy.advance(moved, -unit)
    np.testing.assert_allclose(back.drawn, moved.drawn)
    np.testing.assert_allclose(back.joints, state.joints)
    # Further along the line, where the handle is not, nothing is held.
    astray = toy.KitchenState(toy.HANDLES[3] + 0.6 * along, closed)
    np.testing.assert_array_equal(toy.advance(astray, unit).drawn, closed)
    # Commands and joints have limits.
    fast = toy.advance(state, np.full(9, 7.0)).joints - state.joints
    np.testing.assert_allclose(fast, 0.16)
    for _ in range(40):
        state = toy.advance(state, np.ones(9))
    np.testing.assert_allclose(state.joints, np.pi)


def test_what_is_drawn_is_shown():
    rng = np.random.default_rng(0)
    state = toy.begin(rng)
    halfway = state._replace(drawn=np.eye(7)[NAMES.index("hinge cabinet")] / 2)
    shown = toy.show(halfway, state)
    entries = TASKS["hinge cabinet"].entries
    np.testing.assert_allclose(seen(shown)[entries], [0, 1.45 / 2])
    np.testing.assert_allclose(shown[30:][entries], [0, 1.45 / 2 / 0.08])
    np.testing.assert_allclose(shown[:9], state.joints)
    np.testing.assert_allclose(shown[9:18], 0)


def test_the_demonstrator_does_what_it_intends():
    assert len(set(toy.ORDERS)) == 24
    assert all(len(set(order)) == 4 for order in toy.ORDERS)
    assert {task for order in toy.ORDERS for task in order} == set(range(7))
    rng = np.random.default_rng(1)
    aside = np.full(9, 1 / 3)
    for pace, sides in ((1.0, (1, -1, 1, -1)), (0.7, (-1, 1, -1, 1))):
        order = toy.ORDERS[rng.integers(24)]
        intent = toy.Intent(order, sides, pace)
        state = toy.KitchenState(np.zeros(9), np.zeros(7))
        path, leans, norms = [toy.show(state, state)], [], []
        while (action := toy.demonstrate(intent, state)) is not None:
            leans.append(action @ aside)
            norms.append(np.linalg.norm(action))
            before, state = state, toy.advance(state, action)
            path.append(toy.show(state, before))
            assert len(path) < 280
        done = completions(seen(np.stack(path)))
        assert [NAMES.index(task) for task, _ in done] == list(order)
        assert np.sign(leans[0]) == sides[0]
        assert np.sign(leans[done[0][1] + 8]) == sides[1]
        assert max(norms) == pytest.approx(pace)


def test_intents_are_drawn_alike():
    rng = np.random.default_rng(0)
    intents = [toy.intend(rng) for _ in range(2400)]
    counts = [sum(i.order == order for i in intents) for order in toy.ORDERS]
    assert 60 < min(counts) < 100 < max(counts) < 150
    assert abs(np.mean([i.sides for i in intents])) < 0.05
    assert min(i.pace for i in intents) >= 0.7
    assert max(i.pace for i in intents) <= 1.0


def play_toy(intent, **options):
    env = gymnasium.make(kitchen.TOY, **options)
    observation, info = env.reset(seed=0)
    steps, ended = [(observation, 0.0, info)], False
    while not ended:
        action = toy.demonstrate(intent, env.unwrapped.state)
        action = np.zeros(9) if action is None else action
        observation, reward, terminated, truncated, info = env.step(action)
        steps.append((observation, reward, info))
        ended = terminated or truncated
    return env, steps, terminated


def test_the_toy_kitchen_has_the_schema_of_the_real_one():
    intent = toy.Intent((0, 1, 2, 3), (1, 1, 1, 1), 1.0)
    env, steps, terminated = play_toy(intent)
    real = franka()
    for name, space in real.observation_space.spaces.items():
        mine = env.observation_space[name]
        if name == "observation":
            assert mine.shape == space.shape
        else:
            shapes = {task: box.shape for task, box in space.spaces.items()}
            assert {t: box.shape for t, box in mine.spaces.items()} == shapes
    assert env.action_space.shape == real.action_space.shape
    assert env.observation_space.contains(steps[3][0])
    real.reset(seed=0)
    assert steps[0][2].keys() == real.step(np.zeros(9))[-1].keys()
    # What the environment counts, the same each step, is what its states say.
    shown = np.stack([observation["observation"] for observation, _, _ in steps])
    found = completions(seen(shown))
    told = [
        (task, step)
        for step, (_, _, info) in enumerate(steps)
        for task in info["step_task_completions"]
    ]
    assert found == told
    assert [task for task, _ in found] == NAMES[:4]
    assert steps[-1][2]["episode_task_completions"] == NAMES[:4]
    assert steps[-1][2]["tasks_to_complete"] == NAMES[4:]
    assert sum(reward for _, reward, _ in steps) == 4
    assert not terminated
    assert len(steps) == 281
    # An earlier step's list does not grow later.
    assert steps[0][2]["episode_task_completions"] == []


def test_tasks_of_the_toy_kitchen_can_be_chosen():
    intent = toy.Intent((0, 1, 2, 3), (1, 1, 1, 1), 1.0)
    _, steps, terminated = play_toy(intent, tasks_to_complete=NAMES[:2])
    assert terminated
    assert [r for _, r, _ in steps if r] == [1.0, 1.0]
    assert set(steps[0][0]["achieved_goal"]) == set(NAMES[:2])
    paid = play_toy(
        intent, tasks_to_complete=NAMES[:2], remove_task_when_completed=False
    )[1]
    assert len(paid) == len(steps)
    first = next(i for i, (_, reward, _) in enumerate(steps) if reward)
    assert [r for _, r, _ in paid[first:]] == [1.0] * (len(paid) - first - 1) + [2.0]


def test_the_recipe_and_its_reading(tmp_path):
    recipe = TASK.recipes["toy-kitchen"]
    recipe.make(steps=300, seed=3, root=tmp_path)
    dataset = load_dataset("toy-kitchen", root=tmp_path)
    episodes = dataset.episodes
    assert episodes.observations.shape[1] == 30
    assert episodes.actions.shape[1] == 9
    assert episodes.goals is None
    assert dataset.environment.id == kitchen.TOY
    assert episodes.lengths.sum() >= 300 > episodes.lengths[:-1].sum()
    for path in demonstrations(episodes):
        assert len(completions(path)) == 4
    assert episodes.rewards.sum() == 4 * len(episodes.lengths)
    again = recipe.make(steps=300, seed=3, root=tmp_path)
    assert load_dataset(again).fingerprint == dataset.fingerprint
    shown, _ = record_episode(np.random.default_rng(3), noise=0.1)
    np.testing.assert_allclose(
        episodes.observations[: len(shown)], seen(shown), rtol=1e-6
    )
    assert recipe.options().noise == 0.1
    for wrong, words in (
        ({"steps": 0}, "`steps` is 0"),
        ({"noise": -1.0}, "`noise` is -1.0; it must be at least 0"),
    ):
        with pytest.raises(UserError, match=words):
            recipe.make(**{"steps": 5, "root": tmp_path, **wrong})


def test_what_minari_holds_of_the_franka_kitchen_is_read(tmp_path):
    # As it was made: tasks stay when they are done, and pay in every step.
    env = franka(
        tasks_to_complete=["microwave", "kettle"],
        terminate_on_tasks_completed=False,
        remove_task_when_completed=False,
        max_episode_steps=450,
    )
    rng = np.random.default_rng(0)
    stored = []
    for seed in range(2):
        observations = [env.reset(seed=seed)[0]]
        env.unwrapped.data.qpos[TASKS["microwave"].entries] = -0.75
        actions = rng.uniform(-1, 1, (5 + seed, 9))
        rewards = []
        for action in actions:
            observation, reward, *_ = env.step(action)
            observations.append(observation)
            rewards.append(reward)
        stored.append(
            {
                "observations": {
                    "observation": np.stack([o["observation"] for o in observations]),
                    **{
                        goal: {
                            task: np.stack([o[goal][task] for o in observations])
                            for task in ("microwave", "kettle")
                        }
                        for goal in ("achieved_goal", "desired_goal")
                    },
                },
                "actions": actions,
                "rewards": np.array(rewards),
                "terminations": np.zeros(len(actions), bool),
                "truncations": np.arange(len(actions)) == len(actions) - 1,
            }
        )
    folder = tmp_path / "D4RL" / "kitchen" / "mixed-v2"
    folder.mkdir(parents=True)
    write_minari(
        folder,
        stored,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        metadata={"dataset_id": "D4RL/kitchen/mixed-v2"},
    )
    dataset = load_dataset("D4RL/kitchen/mixed-v2", root=tmp_path)
    assert dataset.environment.id == kitchen.FRANKA
    assert dataset.episodes.lengths.tolist() == [5, 6]
    assert dataset.episodes.goals is None
    paths = demonstrations(dataset.episodes)
    for path, episode in zip(paths, stored, strict=True):
        assert path.shape == (len(episode["actions"]) + 1, 30)
        np.testing.assert_allclose(
            path[:, TASKS["kettle"].entries],
            episode["observations"]["achieved_goal"]["kettle"],
            atol=1e-3,
        )
        # Paid in every step, and counted once.
        assert episode["rewards"].sum() == len(episode["actions"])
        assert completions(path) == [("microwave", 1)]
