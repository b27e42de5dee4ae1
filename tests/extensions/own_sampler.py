"""A new sampler in one file: DDIM whose steps add half of the posterior noise."""

import functools

from jaxdiff.diffusion import SAMPLERS, ddim

SAMPLERS["ddim-half"] = functools.partial(ddim, eta=0.5)
