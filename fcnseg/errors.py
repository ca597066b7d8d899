"""The one exception that means: the input is at fault, not the program."""


class InputError(ValueError):
    """Bad input from the user: a file, a value or a name. Its message is one readable line.

    The command line prints it without a traceback and exits with code 2.
    """
