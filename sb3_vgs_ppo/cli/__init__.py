"""Commands: they read options, call :mod:`sb3_vgs_ppo.runs`, and print."""
