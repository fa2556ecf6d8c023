"""Defines errors that a user can correct: commands print them as one line and exit with a status other than 0."""


def printable(message: str) -> str:
    """Returns a message as one printable line; other characters, of file names for example, become question marks."""
    return "".join(c if c.isprintable() else "?" for c in message)


class UserError(ValueError):
    """Reports an error that the user can correct; the message names the file or the setting, cause and remedy."""


class NotFiniteError(UserError):
    """Reports that a network computed NaN or infinity."""


class WeightsError(UserError):
    """Reports weights that cannot be used. The message is one printable line, whatever keys a damaged file holds."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))
