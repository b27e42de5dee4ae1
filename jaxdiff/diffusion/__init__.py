"""The mathematics of diffusion: arrays in, arrays out.

levels = cosine_schedule(20)
losses = denoising_loss(keys, network, uniform_row(levels), x0, prediction="x0")
out = sample(key, denoiser(network, prediction="x0"), ddpm(levels), x0.shape)
"""

from jaxdiff.diffusion.constraint import Clamp, apply, clip_box, keep_out
from jaxdiff.diffusion.guide import (
    chain,
    classifier_free,
    climb,
    compose,
    guide_prediction,
    keep_out_value,
    pass_by_value,
    select_by,
    smooth_covariance,
    value_guide,
)
from jaxdiff.diffusion.loss import (
    DrawLevel,
    denoising_loss,
    noise_examples,
    trajectory_weights,
    uniform_row,
    uniform_time,
)
from jaxdiff.diffusion.regularize import Omega, omega, score_gradient, unit_rms
from jaxdiff.diffusion.sampler import (
    Denoise,
    SampleOutput,
    Steps,
    ddim,
    ddpm,
    denoiser,
    dpm_solver_pp,
    sample,
)
from jaxdiff.diffusion.schedule import (
    NoiseLevels,
    add_noise,
    cosine_schedule,
    discretize,
    from_betas,
    from_x0,
    linear_schedule,
    shift_noise,
    subgrid,
    take,
    to_x0,
    vp_level,
    vp_schedule,
)

__all__ = [
    "Clamp",
    "Denoise",
    "DrawLevel",
    "NoiseLevels",
    "Omega",
    "SampleOutput",
    "Steps",
    "add_noise",
    "apply",
    "chain",
    "classifier_free",
    "climb",
    "clip_box",
    "compose",
    "cosine_schedule",
    "ddim",
    "ddpm",
    "denoiser",
    "denoising_loss",
    "discretize",
    "dpm_solver_pp",
    "from_betas",
    "from_x0",
    "guide_prediction",
    "keep_out",
    "keep_out_value",
    "linear_schedule",
    "noise_examples",
    "omega",
    "pass_by_value",
    "sample",
    "score_gradient",
    "select_by",
    "shift_noise",
    "smooth_covariance",
    "subgrid",
    "take",
    "to_x0",
    "trajectory_weights",
    "uniform_row",
    "uniform_time",
    "unit_rms",
    "value_guide",
    "vp_level",
    "vp_schedule",
]
