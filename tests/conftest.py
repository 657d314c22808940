"""Settings that every test shares."""

from __future__ import annotations

import torch as th

# Small networks on shared machines: threads cost more than they give, and sums do not depend on their number.
th.set_num_threads(1)
