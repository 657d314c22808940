"""Turning files of other versions, and of plain Stable-Baselines3, into this package's checkpoints."""

from sb3_vgs_ppo.migration.migrate import migrate_checkpoint
from sb3_vgs_ppo.migration.report import MigrationReport

__all__ = ["MigrationReport", "migrate_checkpoint"]
