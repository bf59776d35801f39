"""How many cases a campaign runs: all of them, or, for a quick look, the share that CAMPAIGN_SHARE gives (0.05, say)."""

import math
import os

SHARE = float(os.environ.get("CAMPAIGN_SHARE", "1"))


def scaled(count: int) -> int:
    """Return a share of a count of cases, at least one."""
    return max(1, math.ceil(count * SHARE))
