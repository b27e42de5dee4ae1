"""Rules of the structure that a type checker cannot see."""

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

import jaxdiff

PACKAGE = pathlib.Path(jaxdiff.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Each part, and the parts that it may import. Leaves may be imported by all.
LEAVES = {"errors", "files", "options", "pytree", "progress", "devices", "registry"}
LEAVES |= {"compilation", "host_program", "threefry"}
LOWER = {
    "diffusion": set(),
    "networks": set(),
    "data": set(),
    "algorithms": {"data", "diffusion", "networks"},
}
MIDDLE = {
    *("train", "checkpoint", "run_folder", "run", "policy", "rollouts", "scoring"),
    "live",
    *("episode_log", "simulation"),
    "figures",
}
UPPER = {"plans", "evaluation", "training", "tune", "bench", "habit"}
TOP = {"demo", "cli", "__main__"}
ALLOWED = {
    **{name: parts | LEAVES for name, parts in LOWER.items()},
    **{name: LEAVES for name in LEAVES},
    **{name: LEAVES | set(LOWER) | MIDDLE for name in MIDDLE},
    "tasks": LEAVES | set(LOWER) | MIDDLE,
    **{name: LEAVES | set(LOWER) | MIDDLE | UPPER | {"tasks"} for name in UPPER},
}

# Words that name a task. Only jaxdiff/tasks and the demo may use them.
TASK_WORDS = set(
    [
        *("maze", "pointmaze", "antmaze", "claw", "kitchen", "franka", "doom"),
        *("vizdoom", "pusht", "hopper", "walker2d", "halfcheetah"),
    ]
)


def dotted(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def trees():
    return {dotted(path): ast.parse(path.read_text()) for path in FILES}


def imported(module, tree):
    """Every module that is imported anywhere in a file, by its full name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def place(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def neighbours(module, tree):
    """The parts of this package that a module imports from, its own left out."""
    names = {name for name in imported(module, tree) if name.split(".")[0] == "jaxdiff"}
    return {place(name) for name in names} - {place(module)}


@functools.cache
def names_used(tree):
    """Every dotted name in a file, as it is written."""
    return {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name)
    }


def test_every_module_has_a_place():
    places = {place(module) for module in trees()} - {""}
    assert places == set(ALLOWED) | TOP


def test_imports_run_one_way():
    for module, tree in trees().items():
        if place(module) in ALLOWED:
            # The version is all that lies in the package itself.
            found = neighbours(module, tree) - {""}
            assert found <= ALLOWED[place(module)], module


@pytest.mark.parametrize("parts", [MIDDLE, UPPER], ids=["middle", "upper"])
def test_no_circle_of_imports(parts):
    needs = {name: set() for name in parts}
    for module, tree in trees().items():
        if place(module) in parts:
            needs[place(module)] |= neighbours(module, tree) & parts
    while needs:
        ready = {name for name, needed in needs.items() if not needed & set(needs)}
        assert ready, f"a circle among {sorted(needs)}"
        needs = {name: needed for name, needed in needs.items() if name not in ready}


def words_of(text):
    """Whole words of an identifier or a string, in small letters."""
    parts = re.split(r"[^A-Za-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text))
    return {part.lower() for part in parts} | {text.lower()}


def said(tree):
    """Identifiers, imports and strings of a file; docstrings are left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "module", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
        ):
            yield node.value


def test_only_tasks_and_the_demo_name_a_task():
    for module, tree in trees().items():
        if place(module) in ("tasks", "demo"):
            continue
        for text in said(tree):
            assert not words_of(text) & TASK_WORDS, (module, text)


def users(*wanted):
    """Modules whose code has one of these names, or imports it."""
    return {
        module
        for module, tree in trees().items()
        if any(
            name == want or name.startswith(want + ".")
            for name in names_used(tree) | imported(module, tree)
            for want in wanted
        )
    }


def test_each_power_has_one_home():
    assert users("jax.pmap") == {"jaxdiff.train"}
    assert users("orbax", "ocp") == {"jaxdiff.checkpoint"}
    gradients = users("jax.grad", "jax.value_and_grad", "jax.vjp")
    assert {m for m in gradients if place(m) == "diffusion"} == {
        "jaxdiff.diffusion.guide"
    }


def test_nothing_is_pickled_and_no_random_state_is_shared():
    assert not users("pickle", "cloudpickle", "dill", "joblib", "random")
    # Of NumPy's random module only generators that someone seeds.
    allowed = re.compile(r"(np|numpy)\.random\.(default_rng|Generator|SeedSequence)\b")
    for module, tree in trees().items():
        for name in names_used(tree):
            if name.startswith(("np.random.", "numpy.random.")):
                assert allowed.match(name), (module, name)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                named = {keyword.arg: keyword.value for keyword in node.keywords}
                pickled = named.get("allow_pickle", ast.Constant(False))
                assert ast.unparse(pickled) == "False", module


def test_random_generators_are_seeded():
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                entropy = ast.unparse(node) == "np.random.default_rng()"
                assert not entropy, (
                    f"{module} draws from the operating system's entropy"
                )


def test_library_code_is_not_jitted_inside():
    assert not {
        module
        for module in users("jax.jit", "jax.pjit")
        if place(module) in {"diffusion", "networks", "algorithms"}
    }


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        assert ast.get_docstring(node), node.name


def test_importing_the_package_loads_no_environment_library():
    code = (
        "import sys, jaxdiff; "
        "print([m for m in ('gymnasium', 'mujoco', 'minari', 'torch', 'matplotlib') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    assert done.stdout.strip() == "[]"
