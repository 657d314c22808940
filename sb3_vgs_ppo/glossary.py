"""
Every figure that training logs: name, unit, window and meaning.

``scripts/write_metrics_page.py`` writes the tables of ``docs/metrics.md`` and ``docs/change.md`` from here, and a test
compares the names with what trainings log.
"""

from __future__ import annotations

from dataclasses import dataclass

_UPDATE = "mean over the rollout"
_ROLLOUT_END = "end of the rollout"


@dataclass(frozen=True)
class Metric:
    """
    :param keys: names in the log of figures that share a meaning
    :param unit: of the value; – where it has none
    :param window: what one logged value is of
    :param meaning: in Markdown
    """

    keys: tuple[str, ...]
    unit: str
    window: str
    meaning: str


ROLLOUT = (
    Metric(
        ("rollout/ep_rew_mean",),
        "return",
        "last 100 episodes",
        "mean undiscounted return of training episodes, exploration included; not normalized",
    ),
    Metric(("rollout/ep_len_mean",), "steps", "last 100 episodes", "mean length of training episodes"),
    Metric(
        ("rollout/success_rate",),
        "fraction",
        "last 100 episodes",
        'episodes whose last `info["is_success"]` was true; only where environments report it',
    ),
    Metric(("time/fps",), "steps/s", "since training began or was resumed", "environment steps over all environments"),
    Metric(("time/time_elapsed",), "s", "since training began or was resumed", "wall-clock time"),
    Metric(("time/iterations",), "rollouts", "at the end", "rollouts so far"),
    Metric(("time/total_timesteps",), "steps", "at the end", "environment steps so far, over all environments"),
    Metric(
        ("eval/mean_reward",),
        "return",
        "`--eval-episodes` episodes",
        "mean return of the deterministic policy; only in rows with an evaluation; `evaluations.csv` has all episodes",
    ),
    Metric(("eval/mean_ep_length",), "steps", "`--eval-episodes` episodes", "mean length of those episodes"),
)

TRAIN = (
    Metric(("train/loss",), "–", "last minibatch", "policy loss + `ent_coef` · entropy loss + `vf_coef` · value loss"),
    Metric(("train/policy_gradient_loss",), "–", _UPDATE, "clipped surrogate objective, negated"),
    Metric(
        ("train/value_loss",),
        "return², return or nats",
        _UPDATE,
        "loss of the value head: squared error (scalar), quantile Huber loss, or cross-entropy (categorical)",
    ),
    Metric(("train/entropy_loss",), "nats", _UPDATE, "mean entropy of the policy, negated"),
    Metric(
        ("train/approx_kl",),
        "nats",
        "mean over the last epoch",
        "estimate of the KL divergence of the policy from that of the rollout ([k3](http://joschu.net/blog/kl-approx.html))",
    ),
    Metric(
        ("train/clip_fraction",), "fraction", _UPDATE, "samples whose probability ratio is outside 1 ± `clip_range`"
    ),
    Metric(("train/clip_range",), "–", "now", "`clip_range` by its schedule"),
    Metric(("train/clip_range_vf",), "return", "now", "`clip_range_vf` by its schedule; only where it is set"),
    Metric(
        ("train/explained_variance",),
        "fraction",
        "rollout, before the update",
        "1 − Var(λ-return − value) / Var(λ-return): 1 is a perfect critic, 0 one that knows the mean alone",
    ),
    Metric(("train/learning_rate",), "–", "now", "of all parameter groups"),
    Metric(("train/n_updates",), "epochs", "at the end", "passes over rollouts so far; not in TensorBoard"),
    Metric(("train/std",), "action", "at the end", "standard deviation of Gaussian actions, mean over dimensions"),
    Metric(
        ("train/grad_norm",),
        "gradient",
        _UPDATE,
        "total norm as clipping met it: after scaling with `before_clip`, raw with `after_clip`",
    ),
    Metric(
        ("train/skipped_updates",),
        "minibatches",
        "sum over the rollout",
        "updates skipped because loss or gradient norm was not finite",
    ),
    Metric(
        ("train/value_std",),
        "return",
        "mean over the last epoch",
        "spread (standard deviation) of the predicted distribution",
    ),
    Metric(
        ("train/quantile_crossing",),
        "fraction",
        "last epoch",
        "neighbouring quantiles in the wrong order (quantile head)",
    ),
    Metric(
        ("train/value_target_clipped",),
        "fraction",
        "last epoch, which `target_kl` may cut short",
        "returns outside the support of the atoms, or the share of such distributions (categorical head)",
    ),
)

VGS = (
    Metric(
        ("vgs/scaling_factor",),
        "–",
        _UPDATE,
        'factor by which gradients (or, with `apply_to="update"`, updates) were multiplied, 1 during warm-up; with '
        "several factors, their mean over elements",
    ),
    Metric(
        ("vgs/normalized_variance",),
        "–",
        _UPDATE,
        "normalized variance from which the factor follows (0.9-quantile over tensors; one number in 1.0; over "
        'elements, of the last update, with `granularity="element"`)',
    ),
    Metric(
        (
            "vgs/variance_p10",
            "vgs/variance_p50",
            "vgs/variance_p90",
        ),
        "–",
        _UPDATE,
        "quantiles of the normalized variance, over the same",
    ),
    Metric(("vgs/grad_norm_raw",), "gradient", _UPDATE, "total norm before scaling"),
    Metric(("vgs/grad_norm_scaled",), "gradient", _UPDATE, "total norm after scaling"),
    Metric(
        ("vgs/clip_fraction",),
        "fraction",
        _UPDATE,
        "updates in which clipping still bit (after scaling with `before_clip`); also with VGS off",
    ),
    Metric(
        ("vgs/update_ratio",),
        "–",
        "one `train()` call",
        "‖p_after − p_before‖ / ‖p_before‖ over all parameters; also with VGS off",
    ),
    Metric(("vgs/warmup_active",), "fraction", _UPDATE, "updates during warm-up"),
    Metric(
        ("vgs/nonfinite",),
        "tensors",
        "sum over the rollout",
        "tensors whose gradient held NaN or Inf and was therefore not observed",
    ),
    Metric(
        ("vgs/step_count",), "observations", "at the end", "observations committed since the statistics were last reset"
    ),
)

PLASTICITY = (
    Metric(
        (
            "plasticity/actor_dormant_fraction",
            "plasticity/critic_dormant_fraction",
        ),
        "fraction of units",
        _ROLLOUT_END,
        r"hidden units whose mean \|output\| is at most 0.025 of the mean of that in their layer (Sokar et al. 2023); "
        "a channel of a convolution is one unit. The output of a tanh unit is rarely near 0: look at the next one",
    ),
    Metric(
        (
            "plasticity/actor_tanh_saturation",
            "plasticity/critic_tanh_saturation",
        ),
        "fraction of outputs",
        _ROLLOUT_END,
        r"outputs of tanh units, over units and states, with \|output\| above 0.99, where the derivative is below 0.02 "
        "(our own measure)",
    ),
    Metric(
        (
            "plasticity/actor_effective_rank",
            "plasticity/critic_effective_rank",
        ),
        "directions",
        _ROLLOUT_END,
        "singular values of what the head gets that make up 99 % of the sum of all (Kumar et al. 2021); not centred, "
        "and at most the number of states",
    ),
    Metric(
        ("plasticity/action_saturation",),
        "fraction of choices",
        _ROLLOUT_END,
        "discrete actions: states in which one action has a probability above 0.99. Gaussians: means outside the "
        "bounds of the actions, over states and dimensions; not with squashed or unbounded actions",
    ),
    Metric(
        ("plasticity/logit_norm",),
        "–",
        _ROLLOUT_END,
        "discrete actions: mean over states of the Euclidean norm of the logits, as the action head gives them",
    ),
    Metric(("plasticity/mean_action_norm",), "action", _ROLLOUT_END, "Gaussians: the same of the means"),
    Metric(
        (
            "plasticity/actor_weight_norm",
            "plasticity/critic_weight_norm",
            "plasticity/action_head_weight_norm",
            "plasticity/value_head_weight_norm",
            "plasticity/features_weight_norm",
        ),
        "weight",
        _ROLLOUT_END,
        "Euclidean norm of all weights and biases of a part. The heads are parts of their own; so is a feature "
        "extractor if it is shared",
    ),
    Metric(
        ("plasticity/gate_saturation",),
        "fraction of weights",
        _ROLLOUT_END,
        'UPGD: gates below 0.01 or above 0.99. 0 with `utility_normalization="minmax"`, whose gates lie in 0.27–0.73',
    ),
    Metric(
        ("plasticity/gate_std",),
        "–",
        _ROLLOUT_END,
        "UPGD: spread of the gates over all weights; near 0, they protect nothing in particular",
    ),
)

CHANGE = (
    Metric(
        ("change/shortfall",),
        "return",
        "rollout",
        "mean predicted value minus mean λ-return: positive where less came than was predicted",
    ),
    Metric(
        ("change/pit",),
        "probability",
        "rollout",
        "mean of F(G), the probability integral transform of the λ-returns G under the distributions that were "
        "predicted for their states: ½ where the prediction fits, 0 where every return is below everything that was "
        "thought possible",
    ),
    Metric(
        ("change/p_value",),
        "probability",
        "rollout",
        "of a shortfall as large or larger if nothing has changed; 1 where there is no evidence",
    ),
    Metric(("change/alarms",), "alarms", "at the end", "so far"),
)

GLOSSARY: dict[str, tuple[Metric, ...]] = {
    "rollout": ROLLOUT,
    "train": TRAIN,
    "vgs": VGS,
    "plasticity": PLASTICITY,
    "change": CHANGE,
}
"""The tables by name."""
