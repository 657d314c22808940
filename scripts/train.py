"""``python scripts/train.py …`` is ``sb3-vgs-ppo train …``."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
