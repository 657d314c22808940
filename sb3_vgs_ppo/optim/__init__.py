"""Utility-based perturbed gradient descent as ordinary ``torch.optim`` optimizers.

Source: Elsayed & Mahmood, "Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning", ICLR 2024.
"""

from sb3_vgs_ppo.optim.upgd import UPGD, AdaptiveUPGD

__all__ = ["UPGD", "AdaptiveUPGD"]
