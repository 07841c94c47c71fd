"""What a source raises."""


class SourceError(ValueError):
    """A source that cannot be read as configured: the message names the path or column and what to do."""
