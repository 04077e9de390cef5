"""`python -m tests.gpu.turing run RECIPE ...`: toolkit's command line on a card that passes for a T4."""

from __future__ import annotations

from bench.imposed import believe
from toolkit.planning.cards import CARDS

if __name__ == "__main__":
    believe(CARDS["t4"])
    from toolkit.commands.main import main

    main()
