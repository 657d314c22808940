"""``python scripts/diagnose.py …`` is ``sb3-vgs-ppo diagnose …``."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["diagnose", *sys.argv[1:]]))
