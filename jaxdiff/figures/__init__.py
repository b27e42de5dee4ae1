"""Pictures of results: returns of a dataset, and guidance.

Every function takes arrays and returns a new matplotlib `Figure`.
None of them uses pyplot, global settings or a display. `save` writes a figure. Pictures
of one task lie beside that task.
"""

from jaxdiff.figures.plots import plot_guidance, plot_returns
from jaxdiff.figures.style import save

__all__ = ["plot_guidance", "plot_returns", "save"]
