"""Configuration: every choice a user makes, as YAML groups, and their typed schema."""
