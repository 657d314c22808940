"""Type aliases that several rooms share."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

StateDict: TypeAlias = dict[str, Any]
"""Plain Python values and tensors only, so that ``torch.load(weights_only=True)`` reads it back."""

VgsPlacement: TypeAlias = Literal["before_clip", "after_clip"]
ValueHeadName: TypeAlias = Literal["scalar", "quantile", "categorical"]
ValueTarget: TypeAlias = Literal["sample", "distribution"]
