"""``python scripts/report.py …`` is ``sb3-vgs-ppo report …``."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
