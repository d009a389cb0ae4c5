"""The one exception that means: the input is at fault, not the program."""


class InputError(ValueError):
    """Report bad input: the value received, what is allowed, and what to do next (exit code 2, no traceback)."""
