"""The house rules that a type checker cannot see."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import jaxdiff

PACKAGE = pathlib.Path(jaxdiff.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Each room, and the rooms that it may import; leaves may be imported by everyone.
LEAVES = {"errors", "options", "record", "progress", "devices"}
ROOMS = {
    "envs": set(),
    "data": {"envs"},
    "diffusion": set(),
    "networks": set(),
    "algorithms": {"data", "diffusion", "networks"},
}
WORK = {
    *("checkpoint", "train", "run", "plan", "evaluate", "figures", "presets"),
    *(
        "demo",
        "tune",
    ),
}


def dotted(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


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


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def neighbours(module, tree):
    """The rooms of this package that a module imports from, its own left out."""
    names = {name for name in imported(module, tree) if name.split(".")[0] == "jaxdiff"}
    return {room(name) for name in names} - {room(module)}


def names_used(tree):
    """Every dotted name in a file, as it is written."""
    return {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name)
    }


def test_every_module_has_a_place():
    rooms = {room(module) for module in trees()}
    assert rooms - {"", "cli", "__main__"} - LEAVES - WORK == set(ROOMS)


def test_imports_run_one_way():
    for module, tree in trees().items():
        found = neighbours(module, tree)
        where = room(module)
        if where in LEAVES:
            assert found <= LEAVES, module
        elif where in ROOMS:
            assert found <= ROOMS[where] | LEAVES, module
        elif where in WORK:
            assert "cli" not in found, module


def test_diffusion_is_mathematics_alone():
    for module, tree in trees().items():
        if room(module) == "diffusion":
            assert neighbours(module, tree) <= {"record"}, module


def test_the_workrooms_do_not_import_in_a_circle():
    needs = {name: set() for name in WORK}
    for module, tree in trees().items():
        if room(module) in WORK:
            needs[room(module)] |= neighbours(module, tree) & WORK
    while needs:
        ready = {name for name, needed in needs.items() if not needed & set(needs)}
        assert ready, f"a circle among {sorted(needs)}"
        needs = {name: needed for name, needed in needs.items() if name not in ready}


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
    assert {m for m in gradients if room(m) == "diffusion"} == {
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
        if room(module) in {"diffusion", "networks", "algorithms"}
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
