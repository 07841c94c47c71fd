"""Pure computation: arrays and frames in, arrays and frames out."""
