"""``python scripts/migrate.py …`` is ``sb3-vgs-ppo migrate …``."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["migrate", *sys.argv[1:]]))
