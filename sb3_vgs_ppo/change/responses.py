"""What an agent does about a change that its critic has noticed: each response is small, and they can be combined.

What is lost in continual tasks is mostly the actor's way out of an over-confident policy (docs/change.md), so the head
of the actor is what most of them touch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from inspect import signature
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import nn

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.change.surprise import Surprise
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.scaling import VarianceGradientScaler
from sb3_vgs_ppo.scaling.attachment import attachment_of

Reset: TypeAlias = Literal["head", "all", "none"]

ACTION_GAIN = 0.01
"""Gain of SB3's orthogonal initialisation of the action head: the first policy is nearly uniform."""


class Response(ABC):
    """What happens between the update that follows an alarm and the next rollout, and during later updates."""

    name: ClassVar[str]

    def check(self, model: OnPolicyAlgorithm) -> None:  # noqa: B027 - most responses fit every model
        """:raises UserInputError: this response can do nothing about this model"""

    @abstractmethod
    def respond(self, model: OnPolicyAlgorithm, surprise: Surprise, generator: th.Generator) -> None:
        """
        :param surprise: of the rollout that raised the alarm
        :param generator: source of all random numbers, on the CPU
        """

    def before_update(self, model: OnPolicyAlgorithm) -> None:  # noqa: B027 - most responses are done at once
        """Called before every update."""

    def after_update(self, model: OnPolicyAlgorithm) -> None:  # noqa: B027
        """Called after every update, before :meth:`respond`, and perhaps again before the next one."""

    def state_dict(self) -> StateDict:
        """:return: what lasts longer than the response itself"""
        return {}

    def load_state_dict(self, state: StateDict) -> None:  # noqa: B027
        """:param state: what :meth:`state_dict` returned"""


class ShrinkHead(Response):
    """
    Shrink and perturb the actor's last layer: ``keep · p + (1 − keep) · fresh`` (Ash & Adams 2020, "On Warm-Starting
    Neural Network Training"). Fresh values are those that SB3 would begin with; a Gaussian's ``log_std`` belongs to
    the layer.

    :param keep: share of the old weights in [0, 1); None for twice the mean probability integral transform of the
        rollout, 1 at most, the share of the prediction that still holds: the stronger the evidence, the less is kept.
        All is kept where an agent that is told of a change does as well as before
    :param reset: what optimizer (moments, utilities, step counts) and VGS remember is dropped too: that of the head, of
        all parameters, or none. With UPGD and AdaptiveUPGD "head" makes their steps several times slower from then on:
        tensors that have made different numbers of steps are not updated as one
    :raises UserInputError: a value out of range
    """

    name = "shrink-head"

    def __init__(self, keep: float | None = None, reset: Reset = "head") -> None:
        if keep is not None and not (isinstance(keep, Real) and 0.0 <= keep < 1.0):
            raise UserInputError(f"keep={keep!r} is no share in [0, 1); remedy: 0 restarts the head, 0.5 halves it")
        if reset not in get_args(Reset):
            raise UserInputError(f"reset={reset!r}; remedy: one of {', '.join(get_args(Reset))}")
        self.keep = keep
        self.reset = reset

    def check(self, model: OnPolicyAlgorithm) -> None:
        head = getattr(model.policy, "action_net", None)
        if not isinstance(head, nn.Linear):
            raise UserInputError(
                f"{self.name} needs a policy whose action_net is nn.Linear, as SB3 builds it, "
                f"not {type(head).__name__}; remedy: another response, such as reset-optimizer"
            )

    @th.no_grad()
    def respond(self, model: OnPolicyAlgorithm, surprise: Surprise, generator: th.Generator) -> None:
        keep = share_that_holds(surprise) if self.keep is None else self.keep
        fresh = fresh_head(model.policy, generator)
        for parameter, value in fresh.items():
            parameter.copy_(keep * parameter + (1.0 - keep) * value.to(parameter.device) if keep else value)
        if self.reset != "none":
            forget(model, list(fresh) if self.reset == "head" else None)


def share_that_holds(surprise: Surprise) -> float:
    """
    :param surprise: of the rollout that raised the alarm
    :return: share in [0, 1] of the prediction that still holds; 0 where the critic predicts nothing that is finite
    """
    return min(2.0 * surprise.pit, 1.0) if math.isfinite(surprise.pit) else 0.0


class RestartHead(ShrinkHead):
    """
    Give the actor's last layer the weights it would begin with: a nearly uniform policy on the features as they are.

    :param reset: see :class:`ShrinkHead`
    """

    name = "restart-head"

    def __init__(self, reset: Reset = "head") -> None:
        super().__init__(keep=0.0, reset=reset)


class RestartNetwork(Response):
    """Begin anew: all weights as the policy began, and nothing that optimizer and VGS remember of the old ones."""

    name = "restart-network"

    def respond(self, model: OnPolicyAlgorithm, surprise: Surprise, generator: th.Generator) -> None:
        with th.random.fork_rng(devices=[]):
            # Not th.manual_seed, which also seeds the devices on which actions are drawn
            th.default_generator.manual_seed(int(th.randint(2**62, (1,), generator=generator)))
            # As SB3's OnPolicyAlgorithm._setup_model makes it; policies of sb3-contrib that cannot explore by gSDE do
            # not know the word
            sde = {"use_sde": True} if model.use_sde else {}
            fresh = model.policy_class(
                model.observation_space, model.action_space, model.lr_schedule, **sde, **model.policy_kwargs
            )
        model.policy.load_state_dict(fresh.state_dict())
        forget(model)


class ResetOptimizer(Response):
    """Drop what the optimizer remembers of all parameters, moments, utilities and step counts, and what VGS does."""

    name = "reset-optimizer"

    def respond(self, model: OnPolicyAlgorithm, surprise: Surprise, generator: th.Generator) -> None:
        forget(model)


class Raise(Response):
    """
    Base of what raises a setting during some updates. It falls back linearly; a further alarm starts it anew. What is
    raised is the value that the setting has at each of them, so that a schedule goes on; what somebody else has set
    since then stays.

    :param rollouts: number of updates
    :raises UserInputError: no positive whole number
    """

    rollouts: int
    _left: int
    _usual: list[Any]
    _is_raised: bool

    def __init__(self, rollouts: int) -> None:
        if not isinstance(rollouts, Integral) or isinstance(rollouts, bool) or rollouts < 1:
            raise UserInputError(f"rollouts={rollouts!r} is no positive whole number; remedy: 5 is usual")
        self.rollouts = rollouts
        self._left = 0
        self._usual = []
        self._is_raised = False

    @abstractmethod
    def read(self, model: OnPolicyAlgorithm) -> list[Any]:
        """:return: the setting, per parameter group if it is the optimizer's"""

    @abstractmethod
    def write(self, model: OnPolicyAlgorithm, values: list[Any]) -> None:
        """:param values: what the setting becomes"""

    @abstractmethod
    def raised(self, usual: Any, share: float) -> Any:
        """
        :param usual: value without an alarm
        :param share: of the rise, from 1 down to 1 / rollouts
        """

    def respond(self, model: OnPolicyAlgorithm, surprise: Surprise, generator: th.Generator) -> None:
        self._left = self.rollouts

    def before_update(self, model: OnPolicyAlgorithm) -> None:
        if self._left:
            self._usual = self.read(model)
            share = self._left / self.rollouts
            self.write(model, [self.raised(usual, share) for usual in self._usual])
            self._is_raised = True

    def after_update(self, model: OnPolicyAlgorithm) -> None:
        if self._is_raised:
            self.restore(model)
            self._left -= 1
            self._is_raised = False

    def restore(self, model: OnPolicyAlgorithm) -> None:
        """Give the setting its usual value where it is still the raised one."""
        share = self._left / self.rollouts
        values = zip(self.read(model), self._usual, strict=True)
        self.write(model, [usual if value == self.raised(usual, share) else value for value, usual in values])

    def state_dict(self) -> StateDict:
        return {"left": self._left, "usual": self._usual, "is_raised": self._is_raised}

    def load_state_dict(self, state: StateDict) -> None:
        self._left, self._usual = state["left"], state["usual"]
        # Files of earlier commits do not say so: they were written after an update, with the setting still raised
        self._is_raised = state.get("is_raised", self._left > 0)


class RaiseEntropy(Raise):
    """
    Raise the entropy bonus for some updates.

    :param bonus: added to ``ent_coef`` at first. The default is the constant bonus that helped most in the evidence
    :param rollouts: see :class:`Raise`
    :raises UserInputError: a bonus that is not positive and finite
    """

    name = "raise-entropy"
    bonus: float

    def __init__(self, bonus: float = 0.05, rollouts: int = 5) -> None:
        super().__init__(rollouts)
        if not (isinstance(bonus, Real) and 0.0 < bonus < math.inf):
            raise UserInputError(f"bonus={bonus!r} is no positive number; remedy: 0.05 is usual")
        self.bonus = bonus

    def check(self, model: OnPolicyAlgorithm) -> None:
        if not takes(type(model), "ent_coef"):
            raise UserInputError(
                f"{self.name} needs an entropy bonus, {type(model).__name__} has none; "
                "remedy: another response, such as restart-head"
            )

    def read(self, model: OnPolicyAlgorithm) -> list[float]:
        return [model.ent_coef]

    def write(self, model: OnPolicyAlgorithm, values: list[float]) -> None:
        (model.ent_coef,) = values

    def raised(self, usual: float, share: float) -> float:
        return usual + self.bonus * share


class RaisedSchedule(FloatSchedule):
    """
    A learning rate that is a multiple of the usual one. A file or a copy of the model has the usual one.

    :param usual: SB3's schedule, of the remaining progress from 1 to 0
    :param factor: by which it is multiplied
    """

    def __init__(self, usual: Schedule, factor: float) -> None:
        super().__init__(usual)
        self.usual = usual
        self.factor = factor

    def __call__(self, progress_remaining: float) -> float:
        return super().__call__(progress_remaining) * self.factor

    def __reduce__(self) -> tuple[type[FloatSchedule], tuple[Schedule]]:
        return FloatSchedule, (self.usual,)


class RaiseLearningRate(Raise):
    """
    Raise the learning rate for some updates, so that an agent relearns fast and still settles; warm restarts
    (Loshchilov & Hutter 2017, "SGDR") where they are needed instead of at given times.

    TRPO has a learning rate for its critic alone.

    :param factor: by which the learning rate is multiplied at first
    :param rollouts: see :class:`Raise`
    :raises UserInputError: a factor that is not above 1 and finite
    """

    name = "raise-learning-rate"
    factor: float

    def __init__(self, factor: float = 5.0, rollouts: int = 20) -> None:
        super().__init__(rollouts)
        self.factor = checked_factor(factor)

    def read(self, model: OnPolicyAlgorithm) -> list[Schedule]:
        schedule = model.lr_schedule
        return [schedule.usual if isinstance(schedule, RaisedSchedule) else schedule]

    def write(self, model: OnPolicyAlgorithm, values: list[Schedule]) -> None:
        (model.lr_schedule,) = values

    def raised(self, usual: Schedule, share: float) -> RaisedSchedule:
        return RaisedSchedule(usual, rise(self.factor, share))

    def restore(self, model: OnPolicyAlgorithm) -> None:
        self.write(model, self.read(model))  # a schedule knows the usual one, which `state_dict` cannot hold

    def state_dict(self) -> StateDict:
        return {**super().state_dict(), "usual": []}


class RaiseNoise(Raise):
    """
    Raise the noise of UPGD and AdaptiveUPGD for some updates. Their gate lets it reach the least useful weights most.

    :param factor: by which ``sigma`` is multiplied at first
    :param rollouts: see :class:`Raise`
    :raises UserInputError: a factor that is not above 1 and finite
    """

    name = "raise-noise"
    factor: float

    def __init__(self, factor: float = 10.0, rollouts: int = 5) -> None:
        super().__init__(rollouts)
        self.factor = checked_factor(factor)

    def check(self, model: OnPolicyAlgorithm) -> None:
        optimizer = model.policy.optimizer
        if not all(group.get("sigma", 0.0) > 0.0 for group in optimizer.param_groups):
            raise UserInputError(
                f"{self.name} needs noise in every parameter group, {type(optimizer).__name__} adds none; "
                "remedy: UPGD or AdaptiveUPGD with sigma > 0"
            )

    def read(self, model: OnPolicyAlgorithm) -> list[float]:
        return [group["sigma"] for group in model.policy.optimizer.param_groups]

    def write(self, model: OnPolicyAlgorithm, values: list[float]) -> None:
        for group, value in zip(model.policy.optimizer.param_groups, values, strict=True):
            group["sigma"] = value

    def raised(self, usual: float, share: float) -> float:
        return usual * rise(self.factor, share)


def checked_factor(factor: float) -> float:
    """
    :return: the factor
    :raises UserInputError: not above 1 and finite
    """
    if not (isinstance(factor, Real) and 1.0 < factor < math.inf):
        raise UserInputError(f"factor={factor!r} raises nothing; remedy: a number above 1, such as 10")
    return factor


def rise(factor: float, share: float) -> float:
    """:return: the factor of which a share is left: 1 where there is none"""
    return 1.0 + (factor - 1.0) * share


def takes(algorithm: type[OnPolicyAlgorithm], name: str) -> bool:
    """
    SB3's on-policy algorithms all have the same attributes, whether they use them or not; what one uses it takes.

    :param algorithm: a subclass of OnPolicyAlgorithm, which takes everything
    :param name: an argument
    """
    bases = algorithm.__mro__[: algorithm.__mro__.index(OnPolicyAlgorithm)]
    return any(name in signature(base).parameters for base in bases)


def fresh_head(policy: Any, generator: th.Generator) -> dict[nn.Parameter, th.Tensor]:
    """
    :param policy: SB3's ActorCriticPolicy
    :param generator: on the CPU, so that every device begins alike
    :return: the parameters of the actor's last layer, each with values as SB3 initialises them, on the CPU
    """
    weight, bias = policy.action_net.weight, policy.action_net.bias
    fresh = {parameter: th.zeros(parameter.shape) for parameter in (weight, bias) if parameter is not None}
    if policy.ortho_init:
        nn.init.orthogonal_(fresh[weight], gain=ACTION_GAIN, generator=generator)
    else:  # torch's own for nn.Linear
        bound = 1.0 / math.sqrt(weight.shape[1])
        for value in fresh.values():
            nn.init.uniform_(value, -bound, bound, generator=generator)
    if hasattr(policy, "log_std"):
        fresh[policy.log_std] = th.full(policy.log_std.shape, float(policy.log_std_init))
    return fresh


def forget(model: OnPolicyAlgorithm, parameters: list[nn.Parameter] | None = None) -> None:
    """
    Let optimizer and VGS meet parameters as for the first time: the optimizer's next step makes new state, with new
    bias corrections, and the scaler new statistics.

    :param parameters: all of the optimizer's by default; then the warm-up of VGS begins anew too
    """
    optimizer = model.policy.optimizer
    attachment = attachment_of(optimizer)
    vgs: VarianceGradientScaler | None = getattr(model, "vgs", None) if attachment is None else attachment.vgs
    if parameters is None:
        optimizer.state.clear()
        if vgs is not None:
            vgs.reset_statistics()
        return
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
    if vgs is not None:
        vgs.forget(parameters)
