"""A scaler on any torch optimizer, by its hooks: no line of the training loop changes.

The scaler's state is part of the optimizer's, as ``param_groups[0]["vgs"]``. torch carries unknown entries of a group
along (its learning rate schedulers keep ``initial_lr`` there), so the state is saved and loaded wherever the optimizer
is, also where nothing is attached yet: by ``torch.save(optimizer.state_dict(), …)`` and by every algorithm of SB3.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakValueDictionary

import torch as th

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.scaling.arguments import check_vgs_kwargs
from sb3_vgs_ppo.scaling.scaler import VarianceGradientScaler
from sb3_vgs_ppo.scaling.state import parse_state
from sb3_vgs_ppo.scaling.versions import DEFAULT_VERSION

STATE_KEY = "vgs"

_attachments: WeakValueDictionary[int, Attachment] = WeakValueDictionary()
"""By id of the optimizer, which its attachment keeps alive."""


def attach(
    optimizer: th.optim.Optimizer, version: str | None = None, vgs_kwargs: dict[str, Any] | None = None
) -> Attachment:
    """
    Let a scaler observe and scale at every ``optimizer.step()``::

        attach(optimizer, "4.0", dict(apply_to="update"))
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()

    What the scaler sees is the gradient as ``step()`` finds it. Where the loop clips before, as PPO, A2C and DQN of SB3
    do, its statistics are of the clipped gradient, and scaling comes after clipping. A ``closure`` given to ``step`` is
    followed by the scaler too.

    A state that was loaded into the optimizer, or that an earlier attachment left there, is continued.

    :param optimizer: any but ``LBFGS``, which estimates curvature from differences of gradients: a factor that changes
        between them would spoil it. The tensors of all its groups are scaled, by one scaler
    :param version: what is measured, see :class:`VarianceGradientScaler`; None (the default) is that of the state found
        in the optimizer, or 3.0
    :param vgs_kwargs: further keyword arguments of :class:`VarianceGradientScaler`, e.g. ``dict(alpha=0.5)``; they win
        over the settings of a state
    :return: its ``vgs`` is the scaler. Scaling ends with its ``detach()``, or, if it is used as a context manager, with
        the block
    :raises UserInputError: (a ValueError) the optimizer is ``LBFGS`` or has a scaler already, or an argument or its
        parameters do not suit :class:`VarianceGradientScaler`
    :raises CheckpointError: a state in the optimizer is not that of a scaler of these parameters
    :raises TypeError: not an optimizer of torch
    """
    if not isinstance(optimizer, th.optim.Optimizer):
        raise TypeError(f"attach needs a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(optimizer, th.optim.LBFGS):
        raise UserInputError(
            "LBFGS estimates curvature from differences of gradients, which a changing factor would spoil; "
            "remedy: an optimizer that steps along the gradient, such as SGD or Adam"
        )
    if attachment_of(optimizer) is not None:
        raise UserInputError(
            f"this {type(optimizer).__name__} has a scaler already and would be scaled twice; "
            "remedy: detach() of what attach returned"
        )
    settings = vgs_kwargs or {}
    check_vgs_kwargs(settings, version_argument="version")
    found = optimizer.param_groups[0].get(STATE_KEY)
    if version is None:
        version = DEFAULT_VERSION if found is None else parse_state(found)["vgs_version"]
    vgs = VarianceGradientScaler(_parameters(optimizer), version, **settings)
    asked_for = {name: value for name, value in settings.items() if value is not None}
    if found is not None:
        vgs.load_state_dict({**found, **asked_for})
    return Attachment(optimizer, vgs, asked_for)


def attachment_of(optimizer: th.optim.Optimizer) -> Attachment | None:
    """:return: what is attached to an optimizer"""
    return _attachments.get(id(optimizer))


class Attachment:
    """
    The hooks by which a scaler works on an optimizer; made by :func:`attach`.

    The hooks are the optimizer's, so a pickled or copied optimizer has none of them, and no scaler.

    :param optimizer: has no scaler yet
    :param vgs: of its parameters
    :param settings: of the scaler, which win over those of a state that is loaded
    """

    def __init__(self, optimizer: th.optim.Optimizer, vgs: VarianceGradientScaler, settings: dict[str, Any]) -> None:
        vgs.read_momentum(optimizer)
        self.optimizer = optimizer
        self.vgs = vgs
        self._settings = settings
        self._update: AbstractContextManager[None] | None = None
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_post_hook(self._after_state_dict),
            optimizer.register_load_state_dict_post_hook(self._after_load_state_dict),
        ]
        optimizer.param_groups[0].pop(STATE_KEY, None)  # from here on the state is the scaler's
        _attachments[id(optimizer)] = self

    def detach(self) -> None:
        """End scaling. The scaler's state stays with the optimizer, where the next :func:`attach` finds it."""
        if attachment_of(self.optimizer) is not self:
            return
        for hook in self._hooks:
            hook.remove()
        del _attachments[id(self.optimizer)]
        self.optimizer.param_groups[0][STATE_KEY] = self.vgs.state_dict()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _before_step(
        self, optimizer: th.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """
        :param args: of ``step``: the optimizer itself, and then perhaps a closure
        :return: the same with a closure whose gradient is scaled; None if there is no closure
        """
        watched, present = len(self.vgs.parameters), len(_parameters(optimizer))
        if watched != present:
            raise UserInputError(
                f"the optimizer has {present} tensors now and had {watched} when the scaler was attached; remedy: "
                "attach after the last add_param_group"
            )
        # Entered here and left in the other hook; what a step that failed has left open is dropped
        self._update = self.vgs.scaling_update(optimizer)
        self._update.__enter__()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._scale()
            return None
        if len(args) > 1:
            return (args[0], self._scaling(closure), *args[2:]), kwargs
        return args, {**kwargs, "closure": self._scaling(closure)}

    def _scaling(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def scaled_closure() -> Any:
            loss = closure()
            self._scale()
            return loss

        return scaled_closure

    def _scale(self) -> None:
        self.vgs.observe()
        self.vgs.scale()

    def _after_step(self, *_: object) -> None:
        if self._update is not None:
            self._update.__exit__(None, None, None)
            self._update = None
        self.vgs.step()

    def _after_state_dict(self, _: th.optim.Optimizer, state_dict: StateDict) -> None:
        state_dict["param_groups"][0][STATE_KEY] = self.vgs.state_dict()

    def _after_load_state_dict(self, optimizer: th.optim.Optimizer) -> None:
        state = optimizer.param_groups[0].pop(STATE_KEY, None)
        if state is None:
            self.vgs.reset_statistics()  # they were of another training
        else:
            self.vgs.load_state_dict({**state, **self._settings})
        self.vgs.read_momentum(optimizer)


def _parameters(optimizer: th.optim.Optimizer) -> list[th.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
