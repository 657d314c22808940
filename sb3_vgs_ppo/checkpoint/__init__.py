"""
The checkpoint's format: reading files without trusting them, writing them atomically, and saying what is inside.

Building a model from a checkpoint is the business of the rooms above.
"""

from sb3_vgs_ppo.checkpoint.archive import Archive, Limits, read_archive, write_archive
from sb3_vgs_ppo.checkpoint.checkpoint_file import (
    Checkpoint,
    open_checkpoint,
    read_checkpoint,
    save_model_archive,
    write_checkpoint,
)
from sb3_vgs_ppo.checkpoint.manifest import MANIFEST, SCHEMA, Manifest
from sb3_vgs_ppo.checkpoint.sb3_zip import Sb3Data, read_sb3_data
from sb3_vgs_ppo.checkpoint.summary import CheckpointSummary, inspect_checkpoint
from sb3_vgs_ppo.checkpoint.tensors import dump_tensors, load_tensors
from sb3_vgs_ppo.checkpoint.vgs_state import is_vgs_state, read_vgs_state

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "Archive",
    "Checkpoint",
    "CheckpointSummary",
    "Limits",
    "Manifest",
    "Sb3Data",
    "dump_tensors",
    "inspect_checkpoint",
    "is_vgs_state",
    "load_tensors",
    "open_checkpoint",
    "read_archive",
    "read_checkpoint",
    "read_sb3_data",
    "read_vgs_state",
    "save_model_archive",
    "write_archive",
    "write_checkpoint",
]
