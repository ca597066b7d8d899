"""The one exception that means: the input is at fault, not the program."""

from collections.abc import Iterator


class InputError(ValueError):
    """Bad input from the user: a file, a value or a name. Its message is one readable line.

    The command line prints it without a traceback and exits with code 2. What a file gives to be quoted may have any
    length; a message ends after `MOST` letters.
    """

    MOST = 1000

    def __init__(self, message: object = "") -> None:
        text = str(message)
        super().__init__(text if len(text) <= self.MOST else f"{text[: self.MOST]}...")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, the one that it stems from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def mistake(error: BaseException) -> str | None:
    """The user's mistake from which an exception stems, as one line; None where there is none.

    Libraries wrap our exceptions in their own, and data workers in the text of a traceback.
    """
    for cause in causes(error):
        if isinstance(cause, InputError):
            text = str(cause)
            return text.strip().splitlines()[-1].split("InputError: ", 1)[-1] if "Traceback" in text else text
    return None
