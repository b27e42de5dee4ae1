import os

# Set before JAX starts: eight virtual devices stand in for eight real ones.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest


@pytest.fixture
def compilations():
    """A list that grows by one with every program XLA compiles."""
    seen = []

    def listen(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            seen.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
