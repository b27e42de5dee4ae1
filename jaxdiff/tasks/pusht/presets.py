"""Presets in PushT.

Actions are places on a table of 512 pixels, about 38 pixels from the agent, so `demo`
learns their offset from the agent.
"""

from jaxdiff.tasks.imitation import state_presets

PRESETS = state_presets(30_000, demo={"relative": True})
