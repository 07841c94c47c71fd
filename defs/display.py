"""What `tenor run` shows: a line per step with rows and elapsed time while it works, and a table at the end."""

import logging
from types import TracebackType

import dagster as dg
from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

DONE = {
    "STEP_SUCCESS": "[green]done[/]",
    "STEP_FAILURE": "[red]failed[/]",
    "STEP_SKIPPED": "[yellow]skipped[/]",
}


class Display(logging.Handler):
    """Draws steps as Dagster reports their start and end, and rows as the steps report them."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._bars = Bars(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.fields[horizon]:>4} {task.description:<11}"),
            TextColumn("{task.fields[done]:>12}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def rows(self, horizon: str, step: str, done: int) -> None:
        self._update(horizon, step, done=f"{done:,} rows")

    def says(self, horizon: str, step: str, text: str) -> None:
        self._update(horizon, step, state=text)

    def _update(self, horizon: str, step: str, **fields: str) -> None:
        task = self._tasks.get((horizon, step))
        if task is not None:
            self._bars.update(task, **fields)  # type: ignore[arg-type]

    def emit(self, record: logging.LogRecord) -> None:
        """Take Dagster's events off its log records."""
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is None or event.step_key is None:
            return
        horizon, _, step = event.step_key.partition("__")
        if event.event_type_value == "STEP_START":
            self._tasks[(horizon, step)] = self._bars.add_task(step, total=1, horizon=horizon, done="", state="")
        elif event.event_type_value in DONE and (horizon, step) in self._tasks:
            self._bars.update(self._tasks[(horizon, step)], completed=1, state=DONE[event.event_type_value])

    def logger(self) -> dg.LoggerDefinition:
        """The logger to run jobs with: it draws, and writes nothing else to the terminal."""

        @dg.logger
        def display(context: dg.InitLoggerContext) -> logging.Logger:
            # A child of its own class of name: Dagster's own console logger stays away.
            made = logging.Logger("tenor.display", logging.DEBUG)
            made.addHandler(self)
            return made

        return display

    def __enter__(self) -> "Display":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
