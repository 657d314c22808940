"""``python scripts/benchmark.py …`` is ``sb3-vgs-ppo benchmark …``."""

import sys

from sb3_vgs_ppo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
