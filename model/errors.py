"""Errors that a user can correct: commands print them as one line and exit with a status other than 0."""


class UserError(ValueError):
    """The message names the file or the setting, the cause and the remedy."""


class WeightsError(UserError):
    """Weights that cannot be used. The message is one printable line, whatever keys a damaged file holds."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else "?" for c in message))
