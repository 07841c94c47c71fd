"""The steps of a horizon, one file each, built from that horizon's config."""
