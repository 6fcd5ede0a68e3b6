"""Tables on stdout."""

from rich.console import Console


class ResultConsole(Console):
    """A console that leaves to the command line what to do when who read stdout has ended.

    rich's own ends the process with status 1. Where stdout is closed, both print nothing.
    """

    def on_broken_pipe(self) -> None:
        raise  # rich calls this where it has caught the BrokenPipeError
