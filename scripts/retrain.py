"""``python scripts/retrain.py …`` is ``sb3-vgs-ppo retrain …``."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["retrain", *sys.argv[1:]]))
