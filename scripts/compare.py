"""``python scripts/compare.py …`` is ``sb3-vgs-ppo compare …``."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
