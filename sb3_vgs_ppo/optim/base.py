"""What UPGD and AdaptiveUPGD share: groups, state, loading, and the order of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, ClassVar, TypeAlias

import torch as th
from torch import Tensor

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.errors import CheckpointError, UserInputError
from sb3_vgs_ppo.optim.flat_step import FlatBatch, flat_step, kept, unsupported_type
from sb3_vgs_ppo.optim.loop_step import loop_step, loops_for
from sb3_vgs_ppo.optim.options import LATER_OPTIONS, OPTIMIZER_WIDE, check_options
from sb3_vgs_ppo.optim.single_tensor import gates, single_tensor_step
from sb3_vgs_ppo.optim.tensor_batch import TensorBatch, state_dtype

Params: TypeAlias = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]


class UtilityOptimizer(th.optim.Optimizer):
    """Base of the optimizers that gate each element's update by its utility.

    :param params: tensors, named tensors or parameter groups
    :param defaults: options of groups that do not set them
    :param generator: source of the noise; None for torch's global one
    """

    adaptive: ClassVar[bool] = False
    """Whether the update is Adam's instead of the gradient."""

    def __init__(self, params: Params, defaults: dict[str, Any], generator: th.Generator | None) -> None:
        check_options(defaults)
        self.generator = generator
        self._last_flats: list[FlatBatch] = []
        super().__init__(params, defaults)

    @classmethod
    def _state_tensors(cls) -> tuple[str, ...]:
        return ("avg_utility", "exp_avg", "exp_avg_sq") if cls.adaptive else ("avg_utility",)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, also while training; see ``torch.optim.Optimizer.add_param_group``.

        :param param_group: ``params`` and any options that differ from the defaults
        :raises UserInputError: if an option is out of its range, or one that all groups must share differs
        """
        options = {**self.defaults, **param_group}
        check_options(options)
        for name in OPTIMIZER_WIDE:
            if self.param_groups and options[name] != self.param_groups[0][name]:
                raise UserInputError(
                    f"Invalid {name} value: {options[name]!r} in one group, {self.param_groups[0][name]!r} in another "
                    "(must be the same in all groups)"
                )
        super().add_param_group(param_group)
        added = self.param_groups[-1]
        unsupported = unsupported_type(added["params"]) if added["foreach"] else None
        if unsupported is not None:
            self.param_groups.pop()
            raise UserInputError(
                f"Invalid foreach value: True (does not support {unsupported.__name__}, use foreach=None or False)"
            )

    @th.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; the others neither move nor enter the range of the utility.

        :param closure: reevaluates the model and returns the loss
        :return: the closure's loss, or None
        :raises RuntimeError: if a gradient is sparse or complex; nothing has been updated then
        """
        loss = None
        if closure is not None:
            with th.enable_grad():
                loss = closure()
        flats = self._flat_batches()
        batches = self._batches() if flats is None else [flat.batch for flat in flats]
        if not batches:
            return loss
        for batch in batches:
            for state in batch.states:
                state["step"] += 1
        options = {
            "adaptive": self.adaptive,
            "utility_normalization": self.param_groups[0]["utility_normalization"],
            "generator": self.generator,
        }
        if flats is None:
            single_tensor_step(batches, **options)
        elif (loops := loops_for(flats)) is not None:
            loop_step(flats, loops, **options)
        else:
            flat_step(flats, **options)
        return loss

    @th.no_grad()
    def gates(self) -> dict[Tensor, Tensor]:
        """Read the gate s of every element as the last step used it, without changing anything.

        Tensors that took no part in the last step count here with the utility that they have.

        :return: by parameter its gates, of the same shape; without parameters that were never updated
        """
        batches = []
        for group in self.param_groups:
            params = [param for param in group["params"] if self.state.get(param)]
            if params:
                batches.append(TensorBatch(group, params, states=[self.state[param] for param in params]))
        if not batches:
            return {}
        found = gates(batches, self.param_groups[0]["utility_normalization"])
        return {
            param: gate
            for batch, of_batch in zip(batches, found, strict=True)
            for param, gate in zip(batch.params, of_batch, strict=True)
        }

    def _flat_batches(self) -> list[FlatBatch] | None:
        """:return: what the fast implementation works on, that of the last step where possible; None for the other"""
        groups, last = self.param_groups, self._last_flats
        foreach = groups[0]["foreach"]
        if foreach is False:
            return None
        if (
            not th.compiler.is_compiling()
            and len(last) == len(groups)
            and all(flat.take_up(group, self.state) for flat, group in zip(last, groups, strict=True))
        ):
            return last
        batches = self._batches()
        if foreach is None and unsupported_type(chain.from_iterable(batch.params for batch in batches)) is not None:
            return None
        flats = [FlatBatch(batch, self._state_tensors()) for batch in batches]
        if not th.compiler.is_compiling():  # where torch 2.8 can set no attribute of an optimizer
            self._last_flats = kept(flats)
        return flats

    def _batches(self) -> list[TensorBatch]:
        """Sort the tensors that have a gradient by group, device, dtype and step; empty ones have nothing to update."""
        batches: list[TensorBatch] = []
        for group in self.param_groups:
            of_group: list[TensorBatch] = []
            for param in group["params"]:
                if param.grad is None or param.numel() == 0:
                    continue
                self._check_gradient(param.grad)
                state = self._state_of(param)
                for batch in of_group:  # not next(…), which torch 2.8 cannot trace
                    if batch.takes(param, state):
                        break
                else:
                    batch = TensorBatch(group)
                    of_group.append(batch)
                batch.append(param, param.grad, state)
            batches.extend(of_group)
        return batches

    def _check_gradient(self, grad: Tensor) -> None:
        if grad.layout != th.strided:
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients, got layout {grad.layout}")
        if grad.is_complex():
            raise RuntimeError(f"{type(self).__name__} does not support complex gradients, got dtype {grad.dtype}")

    def _state_of(self, param: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[param]
        if not state:
            # A Python number: the bias corrections then need no device, and torch.compile traces it as a symbol.
            state["step"] = 0
            for name in self._state_tensors():
                state[name] = th.zeros_like(param, dtype=state_dtype(param), memory_format=th.preserve_format)
        return state

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "generator": self.generator}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a pickled or loaded state; the one place where old states evolve."""
        super().__setstate__(state)
        self._last_flats = []
        for group in self.param_groups:
            for name, value in LATER_OPTIONS.items():
                group.setdefault(name, value)
        for param_state in self.state.values():
            if "step" in param_state:
                # torch's own optimizers, from which a state may have been converted, count in a tensor.
                param_state["step"] = int(param_state["step"])

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load what ``state_dict()`` returned, in full precision and without sharing memory with it.

        :param state_dict: groups may lack the options that were added later
        :raises CheckpointError: (a ``ValueError``) if it was saved by another optimizer or for other parameters
        """
        final: StateDict = {}

        def check_and_keep(_: th.optim.Optimizer, loaded: StateDict) -> None:
            self._check_state_dict(loaded)
            final.update(loaded)

        # Hooked in last, so that it sees what the user's own hooks made of the state.
        handle = self.register_load_state_dict_pre_hook(check_and_keep)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        # torch casts state to the parameter's dtype, which would round the float32 state of half-precision parameters.
        for key, param in self._pair_with_params(final):
            for name in self._state_tensors() if key in final["state"] else ():
                value = final["state"][key][name]
                self.state[param][name] = value.to(param.device, state_dtype(param), copy=True)

    def _pair_with_params(self, state_dict: StateDict) -> list[tuple[int, Tensor]]:
        """Pair the keys of a state dict with this optimizer's parameters, in order."""
        keys = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        return list(zip(keys, params, strict=False))  # torch itself refuses a state of another length

    def _check_state_dict(self, state_dict: StateDict) -> None:
        remedy = f"was it saved by another optimizer? {type(self).__name__} can only start fresh from it"
        required = self.defaults.keys() - LATER_OPTIONS.keys()
        for group in state_dict["param_groups"]:
            if missing := required - group.keys():
                raise CheckpointError(f"a parameter group of the loaded state lacks {sorted(missing)}: {remedy}")
        expected = {"step", *self._state_tensors()}
        for key, param in self._pair_with_params(state_dict):
            state = state_dict["state"].get(key)
            if state is None:
                continue
            if state.keys() != expected:
                raise CheckpointError(
                    f"the loaded state of parameter {key} holds {sorted(state)}, expected {sorted(expected)}: {remedy}"
                )
            for name in self._state_tensors():
                if state[name].shape != param.shape:
                    raise CheckpointError(
                        f"{name} of parameter {key} in the loaded state has shape {tuple(state[name].shape)}, "
                        f"but the parameter has {tuple(param.shape)}"
                    )
