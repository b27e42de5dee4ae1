"""Pictures of results: scores, training curves, sweeps, returns and guidance.

Every function takes arrays or rows of results and returns a new matplotlib `Figure`.
None of them uses pyplot, global settings or a display. `save` writes a figure. Pictures
of one task lie beside that task.
"""

from jaxdiff.figures.plots import (
    plot_curve,
    plot_guidance,
    plot_returns,
    plot_scores,
    plot_sweep,
)
from jaxdiff.figures.style import save

__all__ = [
    "plot_curve",
    "plot_guidance",
    "plot_returns",
    "plot_scores",
    "plot_sweep",
    "save",
]
