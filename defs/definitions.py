"""The code location: every horizon under conf/, with the structural overrides the environment names."""

import warnings

import dagster as dg

from conf.compose import compose, horizons
from defs.graph import build
from resources.settings import structural_overrides

# Dagster marks as beta what we use on purpose; a user can do nothing about it.
warnings.filterwarnings("ignore", category=dg.BetaWarning)

_words = structural_overrides()
if not any(word.startswith("horizon=") for word in _words):
    _words = [f"horizon={','.join(horizons())}", *_words]

defs = build(compose(_words))
