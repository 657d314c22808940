"""``python scripts/resume.py …`` is ``sb3-vgs-ppo resume …``."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["resume", *sys.argv[1:]]))
