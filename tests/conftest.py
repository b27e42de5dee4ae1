import os

# Set before JAX starts: eight virtual devices stand in for eight real ones, and what
# runs for a moment is compiled in little time, not to run in little time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAXDIFF_CACHE"] = "off"  # tests write nothing into a home

import resource

import jax
import pytest

# A Diffuser that trains in seconds; it plans, if badly.
TINY = (
    *("--dim", "8", "--dim-mults", "1", "--horizon", "16", "--train-horizons"),
    *(
        "--horizons",
        "16",
        "24",
        "--diffusion-steps",
        "4",
        "--sampling-steps",
        "4",
        "--batch-size",
        "8",
    ),
    *("--num-steps", "4", "--save-every", "2", "--log-every", "2", "--devices", "1"),
)


@pytest.fixture
def compilations():
    """A list that grows by the name of every program XLA compiles."""
    seen = []

    def listen(event, seconds, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            seen.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def room():
    """A function that limits the bytes of a file: EFBIG is as good as ENOSPC."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A folder of datasets that holds pointmaze-umaze, of 1200 steps."""
    root = tmp_path_factory.mktemp("datasets")
    from jaxdiff.tasks.lookup import recipes

    recipes()["pointmaze-umaze"].make(steps=1200, root=root)
    return root


@pytest.fixture(scope="session")
def tiny_run(tiny_data, tmp_path_factory):
    """The folder of a run trained by `TINY` on `tiny_data`; copy it to change it."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tiny_data))
        from jaxdiff.cli import main

        named = ("--dataset", "pointmaze-umaze", "--run", str(path))
        main(["train", "diffuser", *named, *TINY])
    return path
