"""The code location: every horizon under conf/, with the structural overrides the environment names.

A horizon whose files cannot be read does not keep the others from loading.
"""

from conf.compose import compose
from defs.graph import build
from defs.look import with_all_horizons
from resources.settings import structural_overrides

defs = build(compose(with_all_horizons(structural_overrides())), spare=True)
