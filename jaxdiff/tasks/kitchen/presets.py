"""Presets in the kitchens.

The transformer and T = 50 of `released` are those of Pearce et al. (2023).
"""

from jaxdiff.tasks.imitation import state_presets

PRESETS = state_presets(20_000, released={"network": "transformer"})
